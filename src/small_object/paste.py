"""Copy-paste augmentation for boxes: objects of other images are pasted where the ground looks alike."""

import random
from typing import Any

import numpy as np
from ultralytics.utils.instance import Instances

MARGIN = 0.25  # of √(w·h): the ground around an object that fades into the image
MIN_MARGIN = 2  # pixels
MAX_DIFFERENCE = 20  # of mean grey levels between the ground around an object and where it goes
MAX_OBJECTS = 10  # from one image
MAX_TRIES = 10  # places to try for an object


class PasteObjects:
    """Pastes objects of randomly chosen images into a training sample.

    Upstream's copy-paste needs masks (Simple Copy-Paste, arXiv 2012.07177) and skips data sets that only have boxes.
    Here an object takes a margin of its surroundings along, which fades out. Of several random places without objects
    it goes to the one with the most similar surroundings (as in Augmentation for small object detection, arXiv
    1902.07296, objects keep their size), or nowhere if none is similar. Objects that overlap others are not copied.

    Args:
        dataset: Upstream's training set or one of tiles.
        num_images: Images whose objects are pasted into a sample.
    """

    def __init__(self, dataset: Any, num_images: int) -> None:
        self.dataset = dataset
        self.num_images = num_images

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with the pasted objects; its boxes are xyxy in pixels, as upstream's affine leaves them."""
        height, width = labels["img"].shape[:2]
        instances = labels["instances"]
        instances.convert_bbox("xyxy")
        instances.denormalize(width, height)
        labels["img"] = np.ascontiguousarray(labels["img"])
        for _ in range(self.num_images):
            buffer = self.dataset.buffer  # images in memory, if not all are
            donor = self.dataset.get_image_and_label(
                random.choice(buffer) if buffer else random.randrange(len(self.dataset))
            )
            self._paste(labels, donor)
        return labels

    def _paste(self, labels: dict[str, Any], donor: dict[str, Any]) -> None:
        """Paste objects of another sample into the image, and add them to its labels."""
        height, width = donor["img"].shape[:2]
        objects = donor["instances"]
        objects.convert_bbox("xyxy")
        objects.denormalize(width, height)
        added, cls = [labels["instances"]], [labels["cls"]]
        taken = labels["instances"].bboxes
        for k in random.sample(range(len(objects)), min(len(objects), MAX_OBJECTS)):
            if (cut := cut_object(donor["img"], objects.bboxes, k)) is None:
                continue
            crop, alpha, corner = cut
            if (place := find_place(labels["img"], taken, crop, alpha)) is None:
                continue
            blend(labels["img"], crop, alpha, place)
            each = objects[[k]]
            each.add_padding(*(place - corner))
            taken = np.concatenate((taken, each.bboxes))
            added.append(each)
            cls.append(donor["cls"][[k]])
        labels["instances"], labels["cls"] = Instances.concatenate(added), np.concatenate(cls)


def cut_object(image: np.ndarray, xyxy: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Cut an object and a margin from an image, shape (H, W, C).

    Args:
        image: Image, uint8.
        xyxy: All its boxes in pixels, shape (N, 4).
        k: Index of the object's box.

    Returns:
        The cut part; its opacity, shape (h, w, 1): 1 in the box, falling to 0 over the margin and in other boxes; the
        part's x and y in the image. None if another box overlaps the object, or nothing is to be seen around it.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box = xyxy[k]
    others = np.delete(xyxy, k, 0)
    if (box[2:] - box[:2]).min() < MIN_MARGIN or ((others[:, :2] < box[2:]) & (others[:, 2:] > box[:2])).all(1).any():
        return None
    margin = max(MIN_MARGIN, MARGIN * ((x2 - x1) * (y2 - y1)) ** 0.5)
    left, top = (max(0, int(low - margin)) for low in (x1, y1))
    right, bottom = (int(min(side, np.ceil(high + margin))) for side, high in ((width, x2), (height, y2)))
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    distance = np.maximum(np.maximum(x1 - x, x - x2), np.maximum(y1 - y, y - y2))
    alpha = np.clip(1 - distance / margin, 0, 1)
    for a, b, c, d in others - np.tile((left, top), 2):
        alpha[max(0, int(b)) : max(0, int(np.ceil(d))), max(0, int(a)) : max(0, int(np.ceil(c)))] *= (
            distance[max(0, int(b)) : max(0, int(np.ceil(d))), max(0, int(a)) : max(0, int(np.ceil(c)))] <= 0
        )
    if not (alpha < 1).any():
        return None
    return image[top:bottom, left:right].astype(np.float32), alpha[..., None].astype(np.float32), np.array([left, top])


def find_place(image: np.ndarray, xyxy: np.ndarray, crop: np.ndarray, alpha: np.ndarray) -> np.ndarray | None:
    """Return where a part of another image fits, x and y, or None if no place that was tried is alike and free."""
    (height, width), (h, w) = image.shape[:2], crop.shape[:2]
    if 2 * h > height or 2 * w > width:
        return None
    around = alpha[..., 0] < 1
    mean, best, place = crop[around].mean(0), MAX_DIFFERENCE, None
    for _ in range(MAX_TRIES):
        x, y = random.randint(0, width - w), random.randint(0, height - h)
        if not ((xyxy[:, :2] < (x + w, y + h)) & (xyxy[:, 2:] > (x, y))).all(1).any():
            difference = np.abs(image[y : y + h, x : x + w][around].mean(0) - mean).max()
            if difference < best:
                best, place = difference, np.array([x, y])
    return place


def blend(image: np.ndarray, crop: np.ndarray, alpha: np.ndarray, place: np.ndarray) -> None:
    """Draw a part of another image into an image, with the brightness of its new surroundings."""
    x, y = place
    target = image[y : y + crop.shape[0], x : x + crop.shape[1]]
    around = alpha[..., 0] < 1
    crop = crop + (target[around].mean(0) - crop[around].mean(0))
    target[:] = (alpha * crop + (1 - alpha) * target).clip(0, 255)
