"""The numbers of a test: scores, their table, and the spoken test."""
