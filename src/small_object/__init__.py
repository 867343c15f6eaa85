"""Small-object detection: what this project adds to Ultralytics, outside the patches in `ultralytics/`."""

import ultralytics_overlay_start

ultralytics_overlay_start.check()  # prints one line if this Python was started without the overlay
