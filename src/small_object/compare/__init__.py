"""Runs of several models over the same images, side by side on a page."""
