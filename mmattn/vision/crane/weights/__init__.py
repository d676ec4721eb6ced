"""Files of tensors, in and out: the released ones, exports, and the one that ships."""
