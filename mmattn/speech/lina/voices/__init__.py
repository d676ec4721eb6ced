"""Whose voice: files, states, tuning, cloning."""
