"""The generator of the embedded Crane's pictures: scenes, defects, captions, twins."""
