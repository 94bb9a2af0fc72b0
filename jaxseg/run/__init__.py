"""A run's workdir: its configuration, provenance, checkpoints and log, its starting weights, and how to load it."""
