"""Measures accuracy, speed, slicing and export."""
