"""Launches the Lina app: ``python apps/lina.py [--checkpoint NAME=PATH ...]``, what a Space runs."""

import sys

from mmattn.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", "lina", *sys.argv[1:]]))
