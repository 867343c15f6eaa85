"""Measurements: accuracy, speed, slicing, export and batches. Run one with `python -m benchmarks.NAME --help`."""
