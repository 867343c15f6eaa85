"""The merging of tiles, against ideal detections and against its rules applied one box at a time."""

import time

import cv2
import numpy as np
import pytest
import torch
from ultralytics.utils.metrics import batch_probiou

from small_object.slicing import merge as module
from small_object.slicing.merge import Merged, merge
from small_object.slicing.rotated import box_corners, min_rotated_box, upright_boxes
from small_object.slicing.tiling import tile_grid

Box = tuple[float, float, float, float]
HW = (900, 1300)


def merged(found: list[tuple[Box, float, int, int]], tiles, hw=HW, **options) -> Merged:
    """Merge detections (box, score, class, source)."""
    boxes, scores, classes, sources = zip(*found, strict=True) if found else ((), (), (), ())
    return merge(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(sources, dtype=torch.int64),
        tiles,
        hw,
        **options,
    )


def look(objects: list[tuple[Box, int]], tiles, rng, min_side=5.0, full: float | None = None, noise=0.0):
    """Return what an ideal detector finds: parts of objects in tiles, and, from `full` pixels on, whole ones in all."""
    found = []
    for (x1, y1, x2, y2), kind in objects:
        for source, (left, top, right, bottom) in enumerate(tiles.tolist()):
            part = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
            if part[2] - part[0] >= min(min_side, x2 - x1) and part[3] - part[1] >= min(min_side, y2 - y1):
                shaken = np.clip(np.add(part, rng.uniform(-noise, noise, 4)), (left, top) * 2, (right, bottom) * 2)
                found.append((tuple(shaken.tolist()), float(rng.uniform(0.3, 1)), kind, source))
        if full is not None and min(x2 - x1, y2 - y1) >= full:
            found.append(((x1, y1, x2, y2), float(rng.uniform(0.3, 1)), kind, -1))
    return [found[k] for k in rng.permutation(len(found))]


def lay_out(rng, count: int, low: float, high: float, hw=HW, classes=2, share=0.15) -> list[tuple[Box, int]]:
    """Return objects with sides of low..high pixels, those of a class overlapping by at most `share` of the smaller."""
    objects: list[tuple[Box, int]] = []
    for _ in range(count):
        w, h = np.exp(rng.uniform(np.log(low), np.log(high), 2)).clip(None, (hw[1], hw[0]))
        x, y = rng.uniform(0, (hw[1] - w, hw[0] - h))
        kind = int(rng.integers(classes))
        if rng.random() < 0.3:  # close to the last one, as if parked
            (x1, y1, x2, y2), kind = objects[-1] if objects else ((0, 0, 50, 50), kind)
            w, h, x, y = x2 - x1, y2 - y1, x2 + rng.uniform(-0.1, 0.1) * (x2 - x1), y1 + rng.uniform(-3, 3)
        box = tuple(float(v) for v in (x, y, x + w, y + h))
        area = w * h
        if min(box) < 0 or box[2] > hw[1] or box[3] > hw[0]:
            continue
        if all(k != kind or inter(b, box) <= share * min(area, size(b)) for b, k in objects):
            objects.append((box, kind))
    return objects


def size(b: Box) -> float:
    return max(0.0, b[2] - b[0]) * max(0.0, b[3] - b[1])


def common(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def inter(a: Box, b: Box) -> float:
    return size(common(a, b))


def assert_found(result: Merged, objects: list[tuple[Box, int]], within=1.0) -> None:
    left = list(zip(result.boxes.tolist(), result.classes.tolist(), strict=True))
    for box, kind in objects:
        hits = [k for k, (b, c) in enumerate(left) if c == kind and np.abs(np.subtract(b, box)).max() <= within]
        assert hits, f"lost: {box} of {kind}; left: {left}"
        left.pop(hits[0])
    assert not left, "more than there is"


@pytest.mark.parametrize("full", [None, 25.0])
@pytest.mark.parametrize(
    "count, low, high, tile, overlap",
    [
        (300, 8, 40, 320, 0.2),  # small ones, dense
        (20, 8, 60, 320, 0.2),  # sparse
        (25, 70, 250, 320, 0.2),  # larger than the overlap of 64
        (60, 10, 150, 320, 0.1),
        (60, 10, 150, 320, 0.6),  # each seen by many tiles
        (8, 200, 800, 256, 0.25),  # larger than a tile
    ],
)
def test_ideal_detections_of_tiles_become_the_true_objects(count, low, high, tile, overlap, full):
    tiles = tile_grid(*HW, tile, overlap)
    for seed in range(1 if count > 100 else 6):
        rng = np.random.default_rng(seed)
        objects = lay_out(rng, count, low, high)
        assert_found(merged(look(objects, tiles, rng, full=full), tiles), objects)


def brute(
    found, tiles, hw, iou=0.5, margin=2.0, min_cover=0.7, min_iou=0.5, min_score_ratio=0.25
) -> list[tuple[Box, float, int]]:
    """Apply the documented rules, one box at a time."""
    frame = (0.0, 0.0, float(hw[1]), float(hw[0]))
    n = len(found)
    tile = [tuple(map(float, tiles[s])) if s >= 0 else frame for *_, s in found]
    tol = [[max(margin, 0.05 * (b[k % 2 + 2] - b[k % 2])) for k in range(4)] for b, *_ in found]
    sign = (-1, -1, 1, 1)
    inner = [[tile[a][k] != frame[k] for k in range(4)] for a in range(n)]
    is_open = [
        [inner[a][k] and sign[k] * (tile[a][k] - found[a][0][k]) <= tol[a][k] for k in range(4)] for a in range(n)
    ]

    def out(a: int) -> Box:
        """Return the box with its open sides at the edge of the tile."""
        box = found[a][0]
        return tuple((min, min, max, max)[k](box[k], tile[a][k]) if is_open[a][k] else box[k] for k in range(4))  # type: ignore[return-value]

    def explained(a: int, box: Box, score: float) -> bool:
        goes_on = all(sign[k] * (box[k] - tile[a][k]) >= -2 * tol[a][k] for k in range(4) if is_open[a][k])
        return (
            goes_on
            and inter(found[a][0], box) >= min_cover * size(found[a][0])
            and score >= min_score_ratio * found[a][1]
        )

    def replaced(coarse: tuple, detailed: tuple) -> bool:
        (box, score, kind, _), (other, high, same, _) = coarse, detailed
        return (
            kind == same
            and high >= 0.75 * score
            and size(other) >= 0.25 * size(box)
            and inter(box, other) >= 0.3 * min(size(box), size(other))
        )

    def one(a: int, b: int) -> bool:
        (_, sa, ka, ta), (_, sb, kb, tb) = found[a], found[b]
        if ka != kb or ta == tb or min(sa, sb) < min_score_ratio * max(sa, sb):
            return False
        zone = common(tile[a], tile[b])
        pa, pb = common(out(a), zone), common(out(b), zone)
        for k in range(4):
            limit = 2 * max(tol[a][k], tol[b][k])
            if (is_open[a][k] or is_open[b][k]) and min(sign[k] * (p[k] - zone[k]) for p in (pa, pb)) < -limit:
                return False
        wa, wb = (tuple(p[k] + sign[k] * margin / 2 for k in range(4)) for p in (pa, pb))
        oa, ob = out(a), out(b)
        if min(oa[2], ob[2]) < max(oa[0], ob[0]) or min(oa[3], ob[3]) < max(oa[1], ob[1]):
            return False
        shared = inter(wa, wb)
        return shared >= min_iou * (size(wa) + size(wb) - shared)

    stays = []
    for a in range(n):
        wholes = [f for b, f in enumerate(found) if not any(is_open[b]) and f[3] != found[a][3]]
        stays.append(not (any(is_open[a]) and any(explained(a, f[0], f[1]) for f in wholes)))
        stays[a] &= found[a][3] >= 0 or not any(replaced(found[a], f) for f in wholes)
    group = list(range(n))
    for a in range(n):
        for b in range(a):
            if stays[a] and stays[b] and any(is_open[a]) and any(is_open[b]) and one(a, b):
                group = [group[b] if g == group[a] else g for g in group]
    members: dict[int, list[int]] = {}
    for a in range(n):
        if stays[a]:
            members.setdefault(group[a], []).append(a)
    items = []
    for parts in members.values():
        lead = min(parts, key=lambda a: (-found[a][1], a))
        boxes = [found[a][0] for a in parts]
        union = tuple(f(b[k] for b in boxes) for k, f in enumerate((min, min, max, max)))
        items.append((lead, union, len(parts) > 1))
    joined = [(lead, union) for lead, union, several in items if several]
    items = [
        (lead, union)
        for lead, union, several in items
        if several or not any(is_open[lead]) or not any(explained(lead, u, found[j][1]) for j, u in joined)
    ]
    kept: list[tuple[int, Box]] = []
    for lead, union in sorted(items, key=lambda item: (-found[item[0]][1], item[0])):
        rivals = [u for j, u in kept if found[j][2] == found[lead][2]]
        if all(inter(u, union) <= iou * (size(u) + size(union) - inter(u, union)) for u in rivals):
            kept.append((lead, union))
    return [(union, found[lead][1], lead) for lead, union in kept]


@pytest.mark.parametrize("seed", range(12))
def test_merge_follows_its_rules_one_by_one(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    hw = (300, 500)
    tiles = tile_grid(*hw, 128, float(rng.choice([0, 0.2, 0.5])))
    objects = lay_out(rng, 40, 8, 200, hw, share=1.0)
    found = look(objects, tiles, rng, noise=2.4, full=60)[:150]
    found = [(tuple(np.round(b, 1).tolist()), round(s, 1), k, t) for b, s, k, t in found]  # some scores are equal
    found = [(b, 0.1 * s if rng.random() < 0.2 else s, k, t) for b, s, k, t in found]
    iou, constants = 0.5, {}
    if seed % 2:
        iou, constants = 0.2, {"margin": 5.0, "min_cover": 0.4, "min_iou": 0.3, "min_score_ratio": 0.05}
    for name, value in constants.items():
        monkeypatch.setattr(module, name.upper(), value)
    boxes, scores, classes, sources = zip(*found, strict=True)
    result = merge(
        *(torch.tensor(x, dtype=torch.float64) for x in (boxes, scores)),
        *(torch.tensor(x) for x in (classes, sources)),
        tiles,
        hw,
        iou=iou,
    )
    expected = brute(found, tiles, hw, iou, **constants)
    assert result.index.tolist() == [lead for *_, lead in expected]
    np.testing.assert_allclose(result.boxes.numpy(), [union for union, *_ in expected])
    assert result.scores.tolist() == [score for _, score, _ in expected]
    assert result.classes.tolist() == [classes[lead] for *_, lead in expected]


def test_a_part_of_another_class_is_explained_by_the_whole_object():
    tiles = tile_grid(100, 180, 100, 0.2)  # 0 to 100 and 80 to 180 px
    truck, part, beside = (85.0, 20.0, 140.0, 60.0), (86.0, 21.0, 100.0, 59.0), (90.0, 20.0, 145.0, 60.0)
    found = merged([(truck, 0.8, 1, 1), (part, 0.9, 0, 0), (beside, 0.7, 2, -1)], tiles, (100, 180))
    assert found.classes.tolist() == [1, 2], "the part goes, two whole objects of two classes stay"


@pytest.mark.parametrize(
    ("detail", "score", "class_id", "kept"),
    [
        ((30.0, 20.0, 46.0, 30.0), 0.6, 0, [0]),  # an IoU of 0.44 with the coarse box: NMS alone would keep both
        ((30.0, 20.0, 46.0, 30.0), 0.5, 0, [0, 1]),  # not certain enough
        ((30.0, 20.0, 46.0, 30.0), 0.6, 1, [0, 1]),  # another class
        ((30.0, 20.0, 34.0, 24.0), 0.6, 0, [0, 1]),  # too small a part of it
    ],
)
def test_a_tile_places_small_objects_better_than_the_whole_image(detail, score, class_id, kept):
    coarse, tiles = (20.0, 16.0, 40.0, 34.0), tile_grid(100, 180, 100, 0.2)
    found = merged([(detail, score, class_id, 0), (coarse, 0.7, 0, -1)], tiles, (100, 180))
    assert sorted(found.index.tolist()) == kept
    for size, rows in ((19, kept), (18.9, [0, 1])):  # √(w·h) of the coarse box is 18.97
        found = merged([(detail, score, class_id, 0), (coarse, 0.7, 0, -1)], tiles, (100, 180), detail_size=size)
        assert sorted(found.index.tolist()) == rows
    away = merged([(detail, score, class_id, -1), (coarse, 0.7, 0, -1)], tiles, (100, 180))
    assert sorted(away.index.tolist()) == [0, 1], "one pass leaves the choice to NMS"
    beside = (26.0, 16.0, 46.0, 34.0)  # an IoU of 0.54
    for iou, rows in ((0.5, [0]), (0.9, [0, 1])):
        found = merged([(beside, 0.8, 0, 0), (coarse, 0.7, 0, -1)], tiles, (100, 180), iou=iou)
        assert sorted(found.index.tolist()) == rows


def test_nothing_found_is_nothing_merged():
    for tiles in (tile_grid(*HW, 320, 0.2), np.zeros((0, 4))):
        result = merge(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), torch.zeros(0), tiles, HW)
        assert result.boxes.shape == (0, 4) and len(result.scores) == len(result.classes) == len(result.index) == 0
    alone = merge(torch.ones(1, 4).half(), torch.ones(1).half(), torch.ones(1), -torch.ones(1), np.zeros((0, 4)), HW)
    assert alone.boxes.dtype == alone.scores.dtype == torch.float32
    assert alone.index.tolist() == [0], "the pass over the whole image needs no tile"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": torch.tensor([4])}, "4 tiles"),
        ({"classes": torch.zeros(2)}, "shapes"),
        ({"boxes": torch.tensor([[5.0, 0, 4, 9]])}, "x1 <= x2"),
        ({"scores": torch.tensor([torch.nan])}, "finite"),
        ({"boxes": torch.tensor([[5.0, 0, torch.inf, 9]])}, "finite"),
    ],
)
def test_wrong_input_is_refused(changes, said):
    right = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "classes": torch.zeros(1), "sources": torch.zeros(1)}
    with pytest.raises(ValueError, match=said):
        merge(**right | changes, tiles=tile_grid(100, 100, 64, 0.2), image_hw=(100, 100))


def test_huge_boxes_take_no_time_and_do_not_affect_others():
    small = torch.tensor([[10.0, 10, 20, 20], [11, 10, 20, 20], [40, 40, 50, 50]])
    huge = torch.tensor([[0.0, 1e9, 3e38, 1e9], [-3e38, 0, 0, 1]])
    boxes, scores = torch.cat((small, huge)), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    started = time.perf_counter()
    found = merge(boxes, scores, torch.zeros(5), torch.full((5,), -1), tile_grid(64, 64, 64, 0.0), (64, 64))
    assert time.perf_counter() - started < 5
    assert found.index.tolist() == [0, 2, 3, 4]


def test_ten_thousand_boxes_merge_fast():
    rng, hw, n = np.random.default_rng(0), (2160, 3840), 10_000
    tiles = tile_grid(*hw, 640, 0.2)
    source = rng.integers(0, len(tiles), n)
    low = rng.uniform(tiles[source, :2], tiles[source, 2:] - 48)
    boxes = torch.from_numpy(np.concatenate((low, low + rng.uniform(8, 48, (n, 2))), 1)).float()
    scores, classes = torch.from_numpy(rng.random(n)), torch.from_numpy(rng.integers(0, 3, n))
    times = []
    for _ in range(3):
        start = time.thread_time()
        merge(boxes, scores, classes, torch.from_numpy(source), tiles, hw)
        times.append(time.thread_time() - start)
    assert min(times) < 0.5, times


def lay_out_rotated(rng, count: int, low: float, high: float) -> np.ndarray:
    """Return rotated boxes, xywhr, of which none overlaps another, some of them side by side as if parked."""
    placed: list[np.ndarray] = []
    for _ in range(count):
        w, h = np.sort(np.exp(rng.uniform(np.log(low), np.log(high), 2)))[::-1]
        box = np.array([*rng.uniform((0, 0), HW[::-1]), w, h, rng.uniform(-np.pi / 4, np.pi * 3 / 4)])
        if placed and rng.random() < 0.5:  # along the short side of the last, with a gap of 3 px
            box = placed[-1].copy()
            box[:2] += (box[3] + 3) * np.array([-np.sin(box[4]), np.cos(box[4])])
        corners = box_corners(box[None])
        inside = (corners >= 0).all() and (corners <= HW[::-1]).all()
        if inside and all(
            cv2.intersectConvexConvex(corners[0], box_corners(other[None])[0])[0] == 0 for other in placed
        ):
            placed.append(box)
    return np.array(placed)


@pytest.mark.parametrize("count, low, high", [(150, 10, 60), (60, 30, 150), (15, 100, 500)])
def test_ideal_rotated_detections_become_the_true_objects(count, low, high):
    """Tiles see the smallest rotated boxes around the parts of objects; upright ones would swallow neighbours."""
    tiles = tile_grid(*HW, 320, 0.2)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        objects = lay_out_rotated(rng, count, low, high)
        found, sources, owners = [], [], []
        for source, (x1, y1, x2, y2) in enumerate(tiles.tolist()):
            frame = np.float32([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
            for k, corners in enumerate(box_corners(objects)):
                area, part = cv2.intersectConvexConvex(corners, frame)
                if area > 0.05 * objects[k, 2:4].prod() and min((box := min_rotated_box(part.reshape(-1, 2)))[2:4]) > 5:
                    found.append(box)
                    sources.append(source)
                    owners.append(k)
        boxes, sources = torch.tensor(np.array(found)), torch.tensor(sources)
        upright = torch.tensor(upright_boxes(box_corners(boxes.numpy()))).double()
        scores = torch.tensor(rng.uniform(0.3, 1, len(found)))
        result = merge(upright, scores, torch.zeros(len(found)), sources, tiles, HW, rotated=boxes)
        ious = batch_probiou(result.rotated, torch.tensor(objects))
        assert len(result.rotated) == len(objects), (seed, len(result.rotated), len(objects))
        assert (ious.argmax(1).sort().values == torch.arange(len(objects))).all() and float(ious.amax(1).min()) > 0.6
        torch.testing.assert_close(
            result.boxes, torch.tensor(upright_boxes(box_corners(result.rotated.numpy()))).double()
        )
        assert [owners[k] for k in result.index] == ious.argmax(1).tolist()
        for k, owner in enumerate(result.owner.tolist()):
            assert owner == -1 or ious[owner].argmax() == owners[k]


def test_the_nms_of_rotated_boxes_is_greedy():
    """Against one that compares all pairs, one at a time."""
    rng = np.random.default_rng(3)
    boxes = np.concatenate(
        (rng.uniform(0, 300, (200, 2)), rng.uniform(10, 80, (200, 2)), rng.uniform(0, 3, (200, 1))), 1
    )
    scores, classes = torch.tensor(rng.uniform(0.2, 1, 200)), torch.tensor(rng.integers(0, 2, 200))
    upright = torch.tensor(upright_boxes(box_corners(boxes))).double()
    options = torch.full((200,), -1), np.zeros((0, 4)), (400, 400)
    ious, kept = batch_probiou(torch.tensor(boxes), torch.tensor(boxes)), []
    for k in scores.argsort(descending=True).tolist():
        if all(ious[k, other] <= 0.3 or classes[k] != classes[other] for other in kept):
            kept.append(k)
    result = merge(upright, scores, classes, *options, iou=0.3, rotated=torch.tensor(boxes))
    assert result.index.tolist() == kept and 20 < len(kept) < 180
