"""Datasets on disk as items: layouts, their readers, records and pictures."""
