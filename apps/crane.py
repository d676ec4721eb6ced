"""Launches the Crane app: ``python apps/crane.py [--checkpoint NAME=PATH ...]``, what a Space runs."""

import sys

from mmattn.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", "crane", *sys.argv[1:]]))
