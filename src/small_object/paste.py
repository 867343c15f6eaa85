"""Copy-paste augmentation for boxes: objects of other images, pasted where the ground looks alike."""

import math
import random
from typing import Any

import numpy as np
from ultralytics.data.augment import BaseMixTransform
from ultralytics.utils.instance import Instances

MARGIN = 0.25  # of √(w·h): the ground around an object that fades into the image
MIN_MARGIN = 2  # pixels
MAX_DIFFERENCE = 20  # between the mean grey levels of the ground around an object and of its new place
PADDING = 114  # upstream's grey level
MAX_PADDING = 0.25  # of the ground of a place
MAX_OBJECTS = 10  # from one image
MAX_TRIES = 10  # places to try for an object


class PasteObjects(BaseMixTransform):
    """Pastes objects of random images into a training sample.

    Upstream's copy-paste cuts objects out along their masks (arXiv 2012.07177) and does nothing where there are only
    boxes. Here, an object takes the ground around its box along, and that fades out. Objects keep their size and are
    pasted whole, without overlap, as in arXiv 1902.07296. Of several random places, an object gets the one where the
    ground is most alike, but none in padding. It is left out if no place is similar, or if another box overlaps it in
    its own image.

    Args:
        dataset: Upstream's training set or one of tiles.
        num_images: Images whose objects are pasted into a sample.
    """

    def __init__(self, dataset: Any, num_images: int) -> None:
        super().__init__(dataset, p=1.0)
        self.num_images = num_images

    def get_indexes(self) -> list[int]:
        """Return the images to take objects from: any, or some of those in memory, as upstream's mosaic does."""
        return random.choices(self.dataset.buffer or range(len(self.dataset)), k=self.num_images)

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Paste the objects of `mix_labels` into the image, and add them to the labels."""
        labels["img"] = np.ascontiguousarray(labels["img"])
        for donor in labels["mix_labels"]:
            for sample in (labels, donor):
                sample["instances"].convert_bbox("xyxy")
                sample["instances"].denormalize(*sample["img"].shape[1::-1])
            self._paste(labels, donor)
        return labels

    def _paste(self, labels: dict[str, Any], donor: dict[str, Any]) -> None:
        objects = donor["instances"]
        instances, cls, taken = [labels["instances"]], [labels["cls"]], labels["instances"].bboxes
        for k in random.sample(range(len(objects)), min(len(objects), MAX_OBJECTS)):
            if (cut := cut_object(donor["img"], objects.bboxes, k)) is None:
                continue
            part, alpha, corner = cut
            if (place := find_place(labels["img"], taken, part, alpha)) is None:
                continue
            blend(labels["img"], part, alpha, place)
            pasted = objects[[k]]
            pasted.add_padding(*(place - corner))
            taken = np.concatenate((taken, pasted.bboxes))
            instances.append(pasted)
            cls.append(donor["cls"][[k]])
        labels["instances"], labels["cls"] = Instances.concatenate(instances), np.concatenate(cls)


def cut_object(image: np.ndarray, xyxy: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Cut an object and the ground around it out of an image.

    Args:
        image: Image, shape (H, W, C), uint8.
        xyxy: Its boxes in pixels, shape (N, 4).
        k: Index of the object's box.

    Returns:
        The part of the image, shape (h, w, C); its opacity 0..1, shape (h, w, 1), which is 1 in the box, falls to 0
        with the distance from it and is 0 in other boxes; x and y of the part. None if another box overlaps the
        object, or if it is too small or has no ground around it.
    """
    box, others = xyxy[k], np.delete(xyxy, k, 0)
    sides = box[2:] - box[:2]
    if sides.min() < MIN_MARGIN or overlaps(others, box).any():
        return None
    margin = max(MIN_MARGIN, MARGIN * math.sqrt(sides.prod()))
    left, top = np.maximum(box[:2] - margin, 0).astype(int)
    right, bottom = np.ceil(np.minimum(box[2:] + margin, image.shape[1::-1])).astype(int)
    y, x = np.mgrid[top:bottom, left:right] + 0.5  # centres of the pixels
    distance = np.maximum.reduce((box[0] - x, x - box[2], box[1] - y, y - box[3]))
    alpha = np.clip(1 - distance / margin, 0, 1)
    for x1, y1, x2, y2 in others[overlaps(others, np.array((left, top, right, bottom)))]:
        alpha[(x1 < x) & (x < x2) & (y1 < y) & (y < y2)] = 0
    part, alpha = image[top:bottom, left:right], alpha[..., None].astype(np.float32)
    return (part, alpha, np.array((left, top))) if find_ground(alpha).any() else None


def find_place(image: np.ndarray, xyxy: np.ndarray, part: np.ndarray, alpha: np.ndarray) -> np.ndarray | None:
    """Find where the part of another image fits into an image.

    Args:
        image: Image, shape (H, W, C).
        xyxy: Its boxes in pixels, shape (N, 4), which the part must not touch.
        part: Part of the other image, shape (h, w, C).
        alpha: Its opacity, shape (h, w, 1).

    Returns:
        x and y of the most similar of a few random places; None if none is similar, or the part is larger than half
        the image.
    """
    (height, width), (h, w), ground = image.shape[:2], part.shape[:2], find_ground(alpha)
    brightness, best, best_difference = part[ground].mean(0), None, float(MAX_DIFFERENCE)
    if 2 * h > height or 2 * w > width:
        return None
    for _ in range(MAX_TRIES):
        x, y = random.randint(0, width - w), random.randint(0, height - h)
        if overlaps(xyxy, np.array((x, y, x + w, y + h))).any():
            continue
        pixels = image[y : y + h, x : x + w][ground]
        difference = np.abs(pixels.mean(0) - brightness).max()
        if difference < best_difference and (pixels == PADDING).all(1).mean() < MAX_PADDING:
            best, best_difference = np.array((x, y)), difference
    return best


def blend(image: np.ndarray, part: np.ndarray, alpha: np.ndarray, place: np.ndarray) -> None:
    """Draw the part of another image into an image, as bright as its new ground; see `find_place`."""
    (x, y), (h, w), ground = place, part.shape[:2], find_ground(alpha)
    target = image[y : y + h, x : x + w]
    part = part + (target[ground].mean(0) - part[ground].mean(0))
    target[:] = (alpha * part + (1 - alpha) * target).clip(0, 255)


def find_ground(alpha: np.ndarray) -> np.ndarray:
    """Return where a part, by its opacity, shape (h, w, 1), shows the ground around its object, shape (h, w)."""
    return np.all((alpha > 0) & (alpha < 1), axis=2)


def overlaps(xyxy: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return which boxes, xyxy, shape (N, 4), share area with a box, shape (4,)."""
    return np.all((xyxy[:, :2] < box[2:]) & (xyxy[:, 2:] > box[:2]), axis=1)
