"""CRASH: traffic accident anticipation from dashcam video (arXiv 2407.17757)."""
