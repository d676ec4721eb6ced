"""Written English to tokens."""
