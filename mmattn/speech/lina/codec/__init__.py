"""Sound to tokens and back: every network, and nothing of storage."""
