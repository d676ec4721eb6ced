"""Files of tensors, in and out: the released ones, ours, and the one that ships."""
