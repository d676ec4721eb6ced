"""Recurrent mixers over the linear kernels, and the parts they are made of."""
