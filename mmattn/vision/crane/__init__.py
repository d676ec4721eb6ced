"""Crane: zero-shot anomaly detection on images (arXiv 2504.11055)."""
