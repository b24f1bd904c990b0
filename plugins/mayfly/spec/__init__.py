"""What users write: job.yaml, targets.yaml and profiles.yaml as strict, frozen models. Pure."""
