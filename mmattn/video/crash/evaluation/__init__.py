"""The numbers of a test: scores, their table, baselines."""
