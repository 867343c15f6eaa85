"""Jobs over large collections of images, on Ray Data."""
