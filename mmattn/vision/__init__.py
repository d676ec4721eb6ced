"""Vision systems."""
