"""Video systems."""
