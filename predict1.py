"""Run every model trained on ASS1 over its validation images: python predict1.py --help."""

import sys
from pathlib import Path

try:
    from small_object.cli import predict
except ModuleNotFoundError as error:
    sys.exit(f"predict1.py: {error}; install this project first: pip install -r requirements.txt")

if __name__ == "__main__":
    sys.exit(predict("ASS1", root=Path(__file__).resolve().parent))
