"""Small-object detection: what this project adds to Ultralytics, outside the patches in `ultralytics/`."""
