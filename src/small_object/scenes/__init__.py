"""Synthetic airport scenes, the demo data sets."""
