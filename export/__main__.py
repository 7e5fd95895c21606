"""Entry point of `python export/` and `python -m export`."""

import sys
from pathlib import Path

if not __package__:
    # Run as a folder, Python puts export/ itself first on the path; the packages are one level up.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from export.cli import main

if __name__ == "__main__":
    main()
