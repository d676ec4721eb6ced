"""Datasets on disk as items: layouts, their readers, recordings, cached tokens."""
