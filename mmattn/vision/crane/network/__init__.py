"""The parts of :mod:`mmattn.vision.crane.model`: plain modules and functions, no files, no Lightning."""
