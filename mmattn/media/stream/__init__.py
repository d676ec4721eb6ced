"""Frames over time: live sources, a gate against bad frames, resampling."""
