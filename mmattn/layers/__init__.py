"""Modules with parameters that are no attention and serve more than one system: quantisers and their codebooks."""
