"""A drive over time: sessions, the risk of each frame, alerts."""
