"""The Gradio apps: one ``build_app`` per system, the hub page, and what they share."""
