"""The generator of dashcam clips, and the data modules that learn from them."""
