"""Launches the CRASH app: ``python apps/crash.py [--checkpoint NAME=PATH ...]``, what a Space runs."""

import sys

from mmattn.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", "crash", *sys.argv[1:]]))
