"""Lina-Speech: text to speech on gated linear attention (arXiv 2410.23320)."""
