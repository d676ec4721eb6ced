"""What happens in a generated clip: physics, drivers, scenarios, the camera. Nothing is drawn here."""
