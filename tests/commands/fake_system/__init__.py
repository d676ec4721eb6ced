"""A system with every part the command line looks for, and nothing heavy."""
