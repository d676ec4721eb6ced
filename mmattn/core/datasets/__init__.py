"""What the datasets of all systems have in common."""
