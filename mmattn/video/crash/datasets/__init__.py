"""Datasets on disk as items: public layouts, their readers, clips, feature folders."""
