"""Sentences and voices that the embedded Lina learned from."""
