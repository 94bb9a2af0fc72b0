"""A run's directory: its configuration, provenance, checkpoints, log, starting weights, and loading it again."""
