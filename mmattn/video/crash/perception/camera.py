"""The camera that the embedded perception was made for: the frame of its pictures, its focal length and its horizon.

The generator draws with it, and the detector reads distances by it.
"""

from __future__ import annotations

__all__ = ["FOCAL", "HEIGHT", "HORIZON_ROW", "WIDTH"]

WIDTH, HEIGHT = 320, 180
"""Pixels."""
FOCAL = 176.0
"""Nominal focal length in pixels: a horizontal view of 84 degrees."""
HORIZON_ROW = 83.0
"""Nominal row of the horizon."""
