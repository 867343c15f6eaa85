"""Batch jobs over large collections of images, on Ray Data."""
