"""Cross-validation: a run for each fold of the training images, and what all of them together say."""
