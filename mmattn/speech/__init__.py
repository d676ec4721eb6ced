"""Speech systems."""
