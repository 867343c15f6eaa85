"""The split into training and validation: properties that hold for any frames, and synthetic frames."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_object.datasets.dataset import Sample, new_dataset
from small_object.datasets.images import SIDE, difference_hash, near_pairs
from small_object.datasets.split import ALIKE_BITS, Frame, group_frames, read_split, split_frames, write_dataset
from small_object.errors import UserError

BITS = SIDE * SIDE  # of a hash


def make_frame(name: str, content: int, look: int, objects: list[int]) -> Frame:
    """A frame whose look is one of some random pictures."""
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    return Frame(name, digest, np.random.default_rng(look).random(BITS) < 0.5, np.array(objects).reshape(2, 5))


frames = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(0, 6),
        st.lists(st.integers(0, 4), min_size=10, max_size=10),
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: [make_frame(f"{i}.jpg", content, look, objects) for i, (content, look, objects) in enumerate(rows)])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(frames, st.randoms(use_true_random=False))
def test_a_split_covers_all_keeps_copies_together_and_does_not_depend_on_the_order(frames, random) -> None:
    sides, groups = split_frames(frames)
    assert len(sides) == len(groups) == len(frames) and set(sides) <= {"train", "val"}
    sides_by_content: dict[str, set[str]] = {}
    for frame, side in zip(frames, sides, strict=True):
        sides_by_content.setdefault(frame.content, set()).add(side)
    assert all(len(both) == 1 for both in sides_by_content.values())
    assert all(len({s for s, g in zip(sides, groups, strict=True) if g == group}) == 1 for group in set(groups))
    if len(set(groups)) > 1:
        assert set(sides) == {"train", "val"}
    order = list(range(len(frames)))
    random.shuffle(order)
    again, _ = split_frames([frames[i] for i in order])
    assert [again[order.index(i)] for i in range(len(frames))] == sides


def test_the_split_is_the_same_with_every_version() -> None:
    frames = [make_frame(f"{i}.jpg", i * 5 % 67, i // 3, [(i + k) * 7 % 5 for k in range(10)]) for i in range(80)]
    sides, _ = split_frames(frames)
    assert "".join(side[0] for side in sides) == (
        "ttttttvvttttttttttvvvtttttttttvvvtttttttttttttttttttttttttttvvvvvvtttttttvvttttt"
    )


def group_hashes(hashes: list[np.ndarray], max_size: int) -> list[list[int]]:
    """Group frames with these hashes, whose contents differ and are not in the order of their names."""
    objects = np.ones((1, 5), np.int64)
    frames = [Frame(f"f{i}.jpg", f"{i * 7919 % 100:064x}", dhash, objects) for i, dhash in enumerate(hashes)]
    return sorted(map(sorted, group_frames(frames, max_size)))


def test_frames_that_look_alike_are_a_group() -> None:
    rng = np.random.default_rng(0)
    hashes = [dhash.copy() for dhash in rng.random((3, BITS)) < 0.5 for _ in range(4)]
    for dhash in hashes:
        dhash[rng.choice(BITS, 5, replace=False)] ^= True  # two of a group differ in 10 bits at most
    assert group_hashes(hashes, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("step, groups", [(ALIKE_BITS[0], 1), (ALIKE_BITS[0] + 1, 6)])
def test_frames_are_alike_through_others(step: int, groups: int) -> None:
    assert len(group_hashes([np.arange(BITS) < i * step for i in range(6)], 6)) == groups  # only neighbours are alike


def test_a_camera_that_never_moves_is_cut_into_runs_in_time() -> None:
    dhash = np.random.default_rng(0).random(BITS) < 0.5
    assert group_hashes([dhash] * 40, 10) == [list(range(k, k + 10)) for k in range(0, 40, 10)]
    copies = [Frame(f"{i}.jpg", "0" * 64, dhash, np.ones((1, 5), np.int64)) for i in range(40)]
    assert len(group_frames(copies, 10)) == 1


def test_near_pairs_are_those_of_a_brute_force() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.random((1100, BITS)) < 0.5
    others = hashes[::9] ^ (rng.random((123, BITS)) < 0.06)
    apart = (hashes[:, None] != others).sum(2)
    blocks = [np.array(block) for block in near_pairs(hashes, others, 20)]
    found = {tuple(pair) for pair in np.concatenate(blocks, 1).T.tolist()}
    assert found == {(i, j, int(apart[i, j])) for i, j in np.argwhere(apart <= 20).tolist()} and len(found) > 90


def test_the_hash_of_a_ramp_says_where_it_gets_brighter() -> None:
    ramp = np.tile(np.arange(170, dtype=np.uint8), (160, 1))
    assert difference_hash(ramp).all() and not difference_hash(ramp[:, ::-1]).any()


def test_every_class_and_size_gets_its_share() -> None:
    rng = np.random.default_rng(9)
    frames = [
        Frame(f"{i}.jpg", hashlib.sha256(b"%d" % i).hexdigest(), rng.random(BITS) < 0.5, rng.poisson(0.3, (3, 5)))
        for i in range(500)
    ]
    sides, _ = split_frames(frames)
    val = np.array([side == "val" for side in sides])
    objects = np.array([frame.objects for frame in frames])
    assert val.sum() == 100
    share = objects[val].sum(0) / objects.sum(0)
    assert ((share > 0.17) & (share < 0.23)).all()  # about 150 objects each
    assert objects[val].sum((0, 2)) / objects.sum((0, 2)) == pytest.approx([0.2] * 3, abs=0.01)
    assert objects[val].sum((0, 1)) / objects.sum((0, 1)) == pytest.approx([0.2] * 5, abs=0.01)


def make_samples(folder: Path, count: int = 10) -> list[Sample]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (64, 48)))
    return [Sample(folder / f"{i}.png", f"{i}.png", f"{i % 2} 0.5 0.5 0.25 0.25\n") for i in range(count)]


def write_all(samples: list[Sample], root: Path, **kwargs) -> list[str]:
    with new_dataset(root) as made:
        return write_dataset(samples, made, **kwargs)


def sides_in(root: Path) -> dict[str, str]:
    return {path.name: path.parent.name for path in root.glob("images/*/*")}


def test_the_split_file_says_where_the_files_lie_and_gives_the_same_split_again(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "in")
    sides = write_all(samples, tmp_path / "a")
    with (tmp_path / "a/split.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"]: row["split"] for row in rows} == sides_in(tmp_path / "a")
    assert all(hashlib.sha256((tmp_path / "in" / r["image"]).read_bytes()).hexdigest() == r["sha256"] for r in rows)
    assert Counter(sides) == {"train": 8, "val": 2}
    for sample, side in zip(samples, sides, strict=True):
        label = tmp_path / "a/labels" / side / sample.name
        assert label.with_suffix(".txt").read_text() == sample.text
    other = [("val" if side == "train" else "train") for side in sides]
    rows = [f"{s.name},{side}" for s, side in zip(samples, other, strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["image,split", *rows]))
    assert write_all(samples, tmp_path / "b", split=tmp_path / "mine.csv") == other
    renamed = [  # found by their content
        Sample(s.image, f"new_{s.name}", s.text, side=side) for s, side in zip(samples, other, strict=True)
    ]
    assert write_all(renamed, tmp_path / "c", split=tmp_path / "a/split.csv") == sides
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["images", "labels", "split.csv"]


def test_images_and_labels_that_cannot_be_read_do_not_stop_it(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "in")
    samples[0].image.write_bytes(b"")
    samples[1].image.write_bytes(b"no image")
    samples[2] = Sample(samples[2].image, "2.png", "0 0.5 x\n")
    samples[3] = Sample(samples[3].image, "3.png", "0 nan 0.5 0.1 0.1\n7.5 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n")
    assert len(write_all(samples, tmp_path / "a")) == 10
    assert len(sides_in(tmp_path / "a")) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\n0.png,train\n", "no row for 9 of 10 images, such as 1.png"),
        ("image,split\n0.png,left\n", ":2: needs the columns"),
        ("file,side\n0.png,train\n", ":2: needs the columns"),
        ("image,split\n0.png,train\n0.png,val\n", ":3: 0.png is on both sides"),
        ("image,split\n" + "".join(f"{i}.png,train\n" for i in range(10)), "puts every image into train"),
        (None, "cannot be read"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "split.csv"
    if text is not None:
        file.write_text(text)
    frames = [make_frame(f"{i}.png", i, i, [0] * 10) for i in range(10)]
    with pytest.raises(UserError) as error:
        read_split(file, frames)
    assert message in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value)
