"""The parts of :mod:`mmattn.video.crash.model`: CRASH, DSTA and a plain GRU in one frame."""
