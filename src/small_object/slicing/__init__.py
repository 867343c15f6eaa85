"""Slicing large images into tiles, and merging what is found in them."""
