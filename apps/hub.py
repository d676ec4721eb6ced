"""Launches the page with all systems: ``python apps/hub.py``."""

import sys

from mmattn.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
