"""An emulator of the Dataproc API; see README.md in this folder."""
