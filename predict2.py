"""Run every model trained on ASS2 over its validation images: python predict2.py --help."""

import sys
from pathlib import Path

try:
    from small_object.cli import predict
except ModuleNotFoundError as error:
    sys.exit(f"predict2.py: {error}; install this project first: pip install -r requirements.txt")

if __name__ == "__main__":
    sys.exit(predict("ASS2", root=Path(__file__).resolve().parent))
