"""Get, import, check, repair and look at data sets: python datasets/prepare.py --help."""

import sys
from pathlib import Path

try:
    from small_object.datasets.prepare import main
except ModuleNotFoundError as error:
    sys.exit(f"prepare.py: {error}; install this project first: pip install -r requirements.txt")

if __name__ == "__main__":
    sys.exit(main(root=Path(__file__).resolve().parents[1]))
