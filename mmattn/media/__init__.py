"""Reading and writing of images and video: arrays in, arrays out."""
