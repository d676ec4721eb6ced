"""Pictures from arrays: pure functions, array in, array out."""
