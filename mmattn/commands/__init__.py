"""The sub-commands of ``mmattn``, one module each with ``main(argv) -> int``; heavy imports happen inside functions."""
