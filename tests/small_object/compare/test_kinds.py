"""The kinds of errors, on cases whose kind follows from TIDE's definitions, and against its rules one by one."""

import numpy as np
import pytest

from small_object.compare.facts import NO_CELL, Boxes, Cell, Facts
from small_object.compare.kinds import Kind, classify, find_pairs

Rows = list[tuple[int, float, float]]


def boxes(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes of 10x10 px at (x, y), and their classes, from rows (class, x, y)."""
    table = np.array(rows, float).reshape(-1, 3)
    return np.column_stack((table[:, 1:], table[:, 1:] + 10)), table[:, 0].astype(int)


@pytest.mark.parametrize(
    ("found", "objects", "kinds", "missed"),
    [  # moved by 2 of 10 px the IoU is 2/3, by 5 it is 1/3, by 9 it is 1/19
        ([(0, 2, 0)], [(0, 0, 0)], "FOUND", 0),
        ([(1, 2, 0)], [(0, 0, 0)], "CLASS", 0),
        ([(0, 5, 0)], [(0, 0, 0)], "LOCALISATION", 0),
        ([(1, 5, 0)], [(0, 0, 0)], "BOTH", 1),
        ([(0, 2, 0), (0, 0, 0)], [(0, 0, 0)], "FOUND DUPLICATE", 0),
        ([(0, 9, 0)], [(0, 0, 0)], "BACKGROUND", 1),
        ([(0, 0, 0)], [], "BACKGROUND", 0),
        ([], [(0, 0, 0), (1, 50, 0)], "", 2),
        ([(1, 0, 0), (0, 2, 0)], [(0, 0, 0)], "CLASS FOUND", 0),
        ([(0, 5, 0)], [(0, 0, 0), (1, 6, 0)], "LOCALISATION", 1),  # TIDE asks for the place first
        ([(0, 0, 0), (0, 1, 0)], [(0, 0, 0), (1, 2, 0)], "FOUND CLASS", 0),  # and for duplicates last
        ([(0, 0, 0), (0, 3, 0)], [(0, 1, 0), (0, 3, 0)], "FOUND FOUND", 0),  # each takes the one that it overlaps most
    ],
)
def test_each_kind_follows_from_its_definition(found: Rows, objects: Rows, kinds: str, missed: int) -> None:
    (xyxy, classes), (truth, truth_classes) = boxes(found), boxes(objects)
    matches = classify(find_pairs(xyxy, truth), classes, truth_classes, np.zeros(len(found), bool))
    assert [Kind(kind).name for kind in matches.kinds] == kinds.split()
    assert ((matches.found_by < 0) & (matches.near < 0)).sum() == missed


def test_a_detection_in_an_ignore_region_is_no_error_unless_it_finds_an_object() -> None:
    xyxy, classes = boxes([(0, 0, 0), (0, 30, 0), (1, 60, 0)])
    truth, truth_classes = boxes([(0, 0, 0), (0, 60, 0)])
    matches = classify(find_pairs(xyxy, truth), classes, truth_classes, np.ones(3, bool))
    assert matches.kinds.tolist() == [Kind.FOUND, Kind.IGNORED, Kind.IGNORED]
    assert matches.near.tolist() == [-1, -1]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def reference(cell: Cell, min_score: float, iou: float) -> dict[Kind, int]:
    """Count the kinds in an image among the detections above a minimum score, one rule after the other."""
    found, objects = cell.detections, cell.objects
    assert objects
    free, near, counts = set(range(len(objects.classes))), set(), dict.fromkeys(Kind, 0)
    for box, c, score in zip(*found, strict=True):
        if score < min_score:
            continue
        of = {j: overlap(box, objects.xyxy[j]) for j in range(len(objects.classes))}
        own = {j: v for j, v in of.items() if objects.classes[j] == c}
        other = {j: v for j, v in of.items() if objects.classes[j] != c}
        best, wrong = max(own, key=own.__getitem__, default=-1), max(other, key=other.__getitem__, default=-1)
        takes = max(free & {j for j, v in own.items() if v >= iou}, key=own.__getitem__, default=-1)
        if takes >= 0:
            free.remove(takes)
            counts[Kind.FOUND] += 1
        elif 0.1 <= own.get(best, 0) <= iou:
            near.add(best)
            counts[Kind.LOCALISATION] += 1
        elif other.get(wrong, 0) >= iou:
            near.add(wrong)
            counts[Kind.CLASS] += 1
        elif own.get(best, 0) >= iou:
            counts[Kind.DUPLICATE] += 1
        else:
            counts[Kind.BACKGROUND if max(of.values(), default=0) <= 0.1 else Kind.BOTH] += 1
    return counts | {Kind.UNDETECTED: len(free), Kind.MISSED: len(free - near)}


def random_cell(rng: np.random.Generator) -> Cell:
    num, num_objects = rng.integers(0, 20), rng.integers(0, 9)
    corners = rng.uniform(0, 60, (num_objects, 2))
    objects = np.column_stack((corners, corners + rng.uniform(4, 30, (num_objects, 2))))
    corners = rng.uniform(0, 60, (num, 2))
    found = np.column_stack((corners, corners + rng.uniform(4, 30, (num, 2))))
    if num_objects:
        near = rng.random(num) < 0.7
        found[near] = objects[rng.integers(0, num_objects, near.sum())] + rng.normal(0, 1.5, (near.sum(), 4))
    scores = -np.sort(-rng.permutation(1000)[:num] / 1000)
    detections = Boxes(found, rng.integers(0, 2, num), scores)
    labels = Boxes(objects, rng.integers(0, 2, num_objects), np.zeros(num_objects))
    return Cell(detections, labels, np.zeros(num, bool), find_pairs(found, objects))


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_facts_of_many_images_agree_with_the_rules_one_by_one_at_any_least_score(iou: float) -> None:
    rng = np.random.default_rng(0)
    cells = [random_cell(rng) for _ in range(40)] + [NO_CELL]
    facts = Facts(cells)
    codes = facts.codes(iou)
    for min_score in (0.0, 0.3, 0.7):
        counts = np.zeros(len(Kind), int)
        active = (codes >> 4 & 1023 > 1000 * min_score) == (codes & 15 < Kind.UNDETECTED)
        np.add.at(counts, codes[active] & 15, 1)
        expected = [reference(cell, min_score, iou) for cell in cells[:-1]]
        assert counts.tolist() == [sum(each[kind] for each in expected) for kind in Kind]
        assert min(counts[kind] for kind in Kind if kind != Kind.IGNORED) > 0
    np.testing.assert_array_equal(facts.count(codes)[3].sum(0), list(reference(cells[3], 0, iou).values()))
