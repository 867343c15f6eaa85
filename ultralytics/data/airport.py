"""ASS1 and ASS2: where the data comes from and where it goes."""

from __future__ import annotations

from pathlib import Path

from ultralytics.utils.errors import UserError

RECORD = "https://zenodo.org/records/10969885"


def require_images(name: str, folder: str | Path) -> None:
    """Say how to come by a data set whose images are missing.

    Args:
        name: `ASS1` or `ASS2`.
        folder: Folder of the data set.

    Raises:
        UserError: Always.
    """
    raise UserError(
        f"{name}: no images in {Path(folder).absolute()}; get the archive of {name} from {RECORD} and put its images "
        f"into images/train and images/val and their YOLO labels into labels/train and labels/val of that folder, "
        f"or use the made-up demo set: data=datasets/{name}-demo/{name}-demo.yaml"
    )
