"""The detector's training, before that of the risk model."""
