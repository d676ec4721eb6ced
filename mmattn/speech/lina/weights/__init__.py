"""Files of tensors, in and out: the released ones, ours, codecs, and the one that ships."""
