"""The synthetic airport scenes: shares, boxes, repeatability and what happens when making a set fails."""

from pathlib import Path

import numpy as np
import pytest
from ultralytics.data.utils import check_det_dataset

from small_object.errors import UserError
from small_object.scenes import generate, render
from small_object.scenes.generate import DEMO_SETS, DemoSet, build_scene, make_demo, plan_split
from small_object.scenes.solids import ModelBuilder
from tests.helpers.common import read_files

ASS1, ASS2 = DEMO_SETS["ASS1-demo"], DEMO_SETS["ASS2-demo"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ASS1-demo, not to be changed."""
    return make_demo("ASS1-demo", tmp_path_factory.mktemp("small"), train=4, val=2)


@pytest.mark.parametrize("count", [3, 40, 160, 333])
def test_the_plan_holds_the_shares_for_any_count(count: int) -> None:
    objects = [o for image in plan_split(ASS1, "train", count) for o in image]
    assert len(objects) == round(8371 / 2000 * count)
    classes = np.bincount([ASS1.names.index(name) for name, _ in objects], minlength=3)
    sizes = np.bincount([size for _, size in objects], minlength=3)
    limit = 0.003 * len(objects) + 2
    assert classes == pytest.approx(np.array([3466, 2994, 1911]) / 8371 * len(objects), abs=limit)
    assert sizes == pytest.approx(np.array([0.394, 0.450, 0.156]) * len(objects), abs=limit)


def test_the_default_ass1_demo_has_the_real_shares() -> None:
    # every fifth image of both splits stands for the whole
    areas, classes, wanted = [], [], []
    for split, count in (("train", ASS1.train), ("val", ASS1.val)):
        plan = plan_split(ASS1, split, count)
        for index in range(0, count, 5):
            _, boxes, labels = render.draw_objects(build_scene(ASS1, split, index, plan[index]))
            areas += (boxes[:, 2:] - boxes[:, :2]).prod(1).tolist()
            classes += labels.tolist()
            wanted += plan[index]
    assert len(classes) >= 0.98 * len(wanted)
    wanted_classes = np.bincount([ASS1.names.index(name) for name, _ in wanted])
    assert np.bincount(classes) == pytest.approx(wanted_classes, abs=0.03 * len(wanted))
    sizes = np.bincount(np.digitize(areas, [32**2, 96**2]))
    assert sizes == pytest.approx(np.bincount([size for _, size in wanted]), abs=0.02 * len(wanted))


def test_ass2_demo_is_as_dense_as_ass2() -> None:
    plan = plan_split(ASS2, "train", 24)
    flat = [n for image in plan for n, _ in image]
    assert flat.count("airplane") == round(23.41 * 24) and flat.count("truck") == round(60.73 * 24)
    got, wanted = np.zeros(2), np.zeros(2)
    for index in range(2):
        labels = render.draw_objects(build_scene(ASS2, "train", index, plan[index]))[2]
        got += np.bincount(labels, minlength=2)
        wanted += [sum(n == name for n, _ in plan[index]) for name in ASS2.names]
    assert (got >= 0.92 * wanted).all() and (got <= wanted).all()


def test_the_same_set_each_time_and_with_any_number_of_threads(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = make_demo("ASS1-demo", tmp_path / "again", train=4, val=2)
    assert read_files(again) == read_files(small)
    assert read_files(make_demo("ASS1-demo", tmp_path / "other", train=4, val=2, seed=1)) != read_files(small)
    assert read_files(small)["images/train/train_00000.jpg"] != read_files(small)["images/val/val_00000.jpg"]


def test_files_and_labels_that_can_be_trained_on(small: Path) -> None:
    names = set(read_files(small))
    assert len(names) == 13 and {"images/val/val_00001.jpg", "labels/train/train_00003.txt"} <= names
    text = "".join(p.read_text() for p in small.glob("labels/*/*.txt"))
    labels = np.array(text.split(), float).reshape(-1, 5)
    assert len(labels) and set(labels[:, 0]) <= {0, 1, 2}
    low, high = labels[:, 1:3] - labels[:, 3:] / 2, labels[:, 1:3] + labels[:, 3:] / 2
    assert (low >= -1e-6).all() and (high <= 1 + 1e-6).all() and (labels[:, 3:] > 0).all()
    found = check_det_dataset(small / "ASS1-demo.yaml")
    assert found["names"] == {0: "airplane", 1: "person", 2: "truck"}
    assert [Path(found[split]) for split in ("train", "val")] == [small / "images/train", small / "images/val"]


@pytest.mark.parametrize("demo", [ASS1, ASS2], ids=["ASS1", "ASS2"])
def test_a_box_is_what_changes_when_its_object_goes(demo: DemoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "NOISE", 0)
    monkeypatch.setattr(render, "_shadows", lambda scene: np.zeros((demo.height, demo.width), np.uint8))
    plan = plan_split(demo, "train", 24)
    index = max(range(24), key=lambda i: len(plan[i])) if demo is ASS1 else 0
    scene = build_scene(demo, "train", index, plan[index])
    num_laid_out = sum(t.label >= 0 for t in scene.objects)
    full, boxes, classes = render.render_scene(scene, np.random.default_rng(0))
    objects = [t for t in scene.objects if t.label >= 0]
    assert [t.label for t in objects] == classes.tolist() and len(objects) >= 0.95 * num_laid_out
    assert not any(a.overlaps(b) for i, a in enumerate(objects) for b in objects[i + 1 :])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (demo.width, demo.height)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 3).all()
    everything = list(scene.objects)
    for i in range(0, len(objects), 1 if demo is ASS1 else len(objects) // 4):
        scene.objects = [t for t in everything if t is not objects[i]]
        changed = (render.render_scene(scene, np.random.default_rng(0))[0] != full).any(2)
        rows, cols = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        found = np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1])
        assert np.abs(found - boxes[i]).max() <= 1, (objects[i].category, found, boxes[i])


def test_the_nearer_solid_of_a_model_is_painted_last() -> None:
    model = ModelBuilder()
    for x in (-2, 0, 2):
        model.box((x, 0, 1), (1, 1, 2), str(x))
    built = model.build()
    for x in (-9, 9):
        solids = built.solid[built.visible_faces(np.array([x, 2, 3]), built.vertices[:, 1:])].tolist()
        assert solids == sorted(solids, reverse=x < 0)


@pytest.mark.parametrize("error", [RuntimeError("no light"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_nothing_half_made_is_left(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(demo, split, *args):
        if split == "val":
            raise error
        return build_scene(demo, split, *args)

    monkeypatch.setattr(generate, "build_scene", fail)
    with pytest.raises(type(error)):
        make_demo("ASS1-demo", tmp_path / "set", train=2, val=1)
    assert list((tmp_path / "set").iterdir()) == []


def test_what_is_there_is_kept_unless_asked(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_files(small)
    make_demo("ASS1-demo", small, train=4, val=2)  # says that it is there
    with pytest.raises(UserError, match="--overwrite"):
        make_demo("ASS1-demo", small, train=5, val=2)
    assert read_files(small) == before
    root = make_demo("ASS1-demo", tmp_path / "set", train=1, val=1)
    (root / "ASS1-demo.yaml").write_text("names: {}\n")
    (root / "labels" / "train.cache").write_text("old")
    old = read_files(root)
    rename, moves = Path.rename, []

    def stumble(self: Path, target: Path) -> Path:
        moves.append(self)
        if len(moves) == 4:  # both old folders are aside, labels are new, images are not
            raise OSError("disk full")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stumble)
        with pytest.raises(OSError, match="disk full"):
            make_demo("ASS1-demo", root, train=2, val=1, overwrite=True)
    assert read_files(root) == old
    make_demo("ASS1-demo", root, train=2, val=1, overwrite=True)
    assert len(list(root.glob("images/train/*.jpg"))) == 2 and not (root / "labels" / "train.cache").exists()
    assert sorted(p.name for p in root.iterdir()) == ["ASS1-demo.yaml", "images", "labels"]


@pytest.mark.parametrize("arguments", [{"name": "ASS3-demo"}, {"train": 0}, {"val": -2}, {"seed": -1}])
def test_bad_arguments_are_refused_in_one_line(arguments: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_demo(**({"name": "ASS1-demo", "root": tmp_path / "set"} | arguments))
    assert "\n" not in str(error.value) and not (tmp_path / "set").exists()
