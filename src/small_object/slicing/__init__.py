"""Slicing of large images into tiles, and merging of the detections in them."""
