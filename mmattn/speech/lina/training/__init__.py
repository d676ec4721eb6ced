"""The codec's training, and where data and model meet."""
