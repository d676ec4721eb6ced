"""The numbers of a test: scores, their table, baselines, a supervised ceiling, memories, calibration."""
