"""Runs several models over the same images and shows them side by side on a page."""
