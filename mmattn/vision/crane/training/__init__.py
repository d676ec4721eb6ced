"""What is trained before the main task, and what makes that cheap."""
