"""Files of tensors: found, checked, read and written."""
