"""The parts of :mod:`mmattn.speech.lina.model`."""
