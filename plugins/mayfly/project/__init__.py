"""The folder of jobs and targets: read, checked, and explained to whoever made a mistake in it."""
