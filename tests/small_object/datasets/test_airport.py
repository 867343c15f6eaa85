"""ASS1 and ASS2 from a local record: fetched, paired, put in class order, laid out; and the command line of it."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sysconfig
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from ultralytics.cfg import entrypoint

from small_object.datasets import airport, record
from small_object.datasets.airport import AirportSet, choose_files, pair, prepare, read_archives
from small_object.datasets.dataset import unique_names
from small_object.datasets.prepare import main
from small_object.datasets.record import RecordFile
from small_object.errors import UserError
from tests.helpers.common import Run
from tests.helpers.record_server import RecordServer

COUNTS = {"ASS1": (7, 6, 4), "ASS2": (4, 9)}  # objects by class
IMAGES = {"ASS1": 10, "ASS2": 6}


def make_files(name: str, images: str = "images", labels: str = "labels", order: tuple[int, ...] = ()) -> dict:
    """Files of an archive: images of noise, and labels with so many objects of each class."""
    rng = np.random.default_rng(IMAGES[name])
    objects = [order[c] if order else c for c, count in enumerate(COUNTS[name]) for _ in range(count)]
    files: dict[str, bytes] = {}
    for i in range(IMAGES[name]):
        image = cv2.resize(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), (96, 72))
        files[f"{images}/{i}.jpg"] = cv2.imencode(".jpg", image)[1].tobytes()
        lines = [f"{c} 0.5 {0.1 + 0.05 * k:.2f} 0.2 0.1\n" for k, c in enumerate(objects[i :: IMAGES[name]])]
        files[f"{labels}/{i}.txt"] = "".join(lines).encode()
    return files


def make_zip(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def state(root: Path) -> dict[str, bytes]:
    """Every file of a data set; caches of training aside."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.suffix != ".cache"
    }


def classes_in(root: Path) -> Counter[int]:
    return Counter(
        int(line.split()[0]) for p in root.glob("labels/*/*.txt") for line in p.read_text().splitlines() if line
    )


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the published counts be those of the sets made here, and keep the archives in this test's folder."""
    for name, counts in COUNTS.items():
        names = airport.SETS[name].objects
        monkeypatch.setitem(
            airport.SETS, name, AirportSet(IMAGES[name], dict(zip(names, counts, strict=True)))
        )  # fmt: skip
    monkeypatch.setenv("ASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(record, "BASE_DELAY", 0.01)


@pytest.fixture
def both() -> dict[str, bytes]:
    return {
        "code.zip": make_zip({"train.py": b"print()"}),
        "ASS2 panoramas.zip": make_zip(make_files("ASS2", "ASS2/JPEGImages", "ASS2/Labels")),
        "ASS_1.zip": make_zip(make_files("ASS1", "data", "data")),
        "paper.pdf": b"%PDF",
    }


# Getting it -----------------------------------------------------------------------------------------------------------


def test_both_sets_come_from_the_record_and_a_second_run_asks_nothing(
    both: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecordServer(both) as server:
        monkeypatch.setenv("ASS_RECORD_URL", server.url)
        assert main(["all"], tmp_path) == 0
        assert not any("code.zip" in request.path for request in server.log)
        asked = len(server.log)
        assert main(["all"], tmp_path) == 0
        assert len(server.log) == asked  # both are in their place
        before = state(tmp_path / "datasets/ASS1")
        assert main(["ASS1", "--overwrite"], tmp_path) == 0
        assert sum("/content" in request.path for request in server.log) == 2  # each archive came once
    assert state(tmp_path / "datasets/ASS1") == before
    for name, counts in COUNTS.items():
        root = tmp_path / "datasets" / name
        assert sorted(p.name for p in root.iterdir()) == ["images", "labels", "split.csv"]
        assert classes_in(root) == dict(enumerate(counts))
        sides = {side: {p.stem for p in (root / "images" / side).iterdir()} for side in ("train", "val")}
        assert sides["train"] | sides["val"] == {str(i) for i in range(IMAGES[name])} and sides["val"]
        assert not sides["train"] & sides["val"]
        source = make_files(name)
        for side, stems in sides.items():
            for stem in stems:
                assert (root / "images" / side / f"{stem}.jpg").read_bytes() == source[f"images/{stem}.jpg"]
                assert (root / "labels" / side / f"{stem}.txt").read_bytes() == source[f"labels/{stem}.txt"]
    assert main(["ASS1", "--overwrite"], tmp_path) == 0  # the server is gone: the cache is enough


def test_an_archive_at_hand_needs_no_network(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as tar:
        for name, data in make_files("ASS2").items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "mine.tar.xz").write_bytes(stream.getvalue())
    root = prepare("ASS2", tmp_path / "ASS2", archive=tmp_path / "mine.tar.xz")
    assert classes_in(root) == dict(enumerate(COUNTS["ASS2"]))
    assert not (tmp_path / "cache").exists()


def test_the_archive_is_chosen_by_its_name() -> None:
    def choose(name: str, *names: str) -> list[str]:
        return [f.name for f in choose_files(name, [RecordFile(n, 1, "0" * 32, "http://x") for n in names])]

    assert choose("ASS1", "ASS2.rar", "ass-1.7z", "notes.txt") == ["ass-1.7z"]
    assert choose("ASS2", "ASS1_images.zip", "ASS2_images.zip", "ASS2_labels.zip") == [
        "ASS2_images.zip",
        "ASS2_labels.zip",
    ]
    assert choose("ASS1", "everything.zip", "ASS2.zip") == ["everything.zip"]
    assert choose("ASS2", "ASS1+ASS2.zip") == ["ASS1+ASS2.zip"]
    assert choose("ASS1", "Class12.zip", "ASS1.zip") == ["ASS1.zip"]
    with pytest.raises(UserError, match=r"no archive of ASS1, but ASS2\.zip, readme\.pdf"):
        choose("ASS1", "ASS2.zip", "readme.pdf")


@pytest.mark.parametrize("name", ["ASS1", "ASS2"])
def test_the_content_tells_where_the_name_does_not(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for each in COUNTS:
        files |= {f"all/{each.lower()}/{key}": data for key, data in make_files(each).items()}
    with RecordServer({"dataset.zip": make_zip(files)}) as server:
        monkeypatch.setenv("ASS_RECORD_URL", server.url)
        assert classes_in(prepare(name, tmp_path / name)) == dict(enumerate(COUNTS[name]))
    other = "ASS2" if name == "ASS1" else "ASS1"
    (tmp_path / "unnamed.zip").write_bytes(make_zip(make_files(name)))
    assert classes_in(prepare(name, tmp_path / "a", archive=tmp_path / "unnamed.zip"))
    with pytest.raises(UserError, match=f"holds {name} by its classes, not {other}"):
        prepare(other, tmp_path / "b", archive=tmp_path / "unnamed.zip")


# From archive to samples ----------------------------------------------------------------------------------------------


def test_pairs_are_found_by_stem_whatever_the_folders(tmp_path: Path) -> None:
    layouts = [
        ("images", "labels"),
        ("ASS1/JPEGImages", "ASS1/Labels"),
        (".", "."),
        ("top/Images/cam", "top/labels/cam"),
        ("imgs", "txt"),
    ]
    for number, (images, labels) in enumerate(layouts):
        folder = write_files(tmp_path / str(number), make_files("ASS1", images, labels))
        paths = sorted(p for p in folder.rglob("*") if p.is_file())
        found = pair([p for p in paths if p.suffix == ".jpg"], [p for p in paths if p.suffix == ".txt"], folder)
        assert len(found) == 10 and all(image.stem == text.stem for image, text in found.items())


def test_of_labels_with_one_stem_that_of_the_same_folder_is_taken(tmp_path: Path) -> None:
    names = [
        "cam1/images/A1.JPG",
        "cam2/images/a1.jpg",
        "cam2/labels/a1.txt",
        "cam1/labels/a1.txt",
        "cam3/images/a1.jpg",
    ]
    folder = write_files(tmp_path, dict.fromkeys(names, b""))
    images = [folder / n for n in names if "images" in n]
    found = pair(images, [folder / n for n in names if "labels" in n], folder)
    assert {str(k.relative_to(folder)): str(v.relative_to(folder)) for k, v in found.items()} == {
        "cam1/images/A1.JPG": "cam1/labels/a1.txt",
        "cam2/images/a1.jpg": "cam2/labels/a1.txt",
    }
    assert unique_names(images, folder) == ["cam1_images_A1.JPG", "cam2_images_a1.jpg", "cam3_images_a1.jpg"]
    assert unique_names(images[:1], folder) == ["A1.JPG"]


def test_junk_and_leftovers_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = make_files("ASS1") | {"labels/99.txt": b"0 0.5 0.5 0.1 0.1\n", "readme.txt": b"hello"}
    del files["labels/3.txt"]
    with caplog.at_level("WARNING"):
        samples, sides = read_archives("ASS1", {"ASS1.zip": write_files(tmp_path / "raw/ASS1.zip", files)})
    assert len(samples) == 10 and sides is None
    assert [s.text for s in samples if s.name == "3.jpg"] == [""]
    assert "1 images without a label file" in caplog.text and "1 label files without an image" in caplog.text


@pytest.mark.parametrize("stated", [None, "classes.txt", "data.yaml"])
def test_another_class_order_is_put_right(tmp_path: Path, stated: str | None, caplog: pytest.LogCaptureFixture) -> None:
    files = make_files("ASS1", order=(2, 0, 1))  # airplanes are 2, persons 0, trucks 1
    if stated == "classes.txt":
        files[stated] = b"People\nTrucks\nAircraft\n"
    elif stated:
        files[stated] = b"names: {0: person, 1: truck, 2: airplane}\n"
    with caplog.at_level("INFO"):
        samples, _ = read_archives("ASS1", {"x.zip": write_files(tmp_path / "raw/x.zip", files)})
    text = "".join(sample.text for sample in samples)
    assert Counter(int(line.split()[0]) for line in text.splitlines()) == dict(enumerate(COUNTS["ASS1"]))
    assert "classes put in order" in caplog.text and "as published" in caplog.text
    plain, _ = read_archives("ASS1", {"y.zip": write_files(tmp_path / "raw/y.zip", make_files("ASS1"))})
    assert [s.text for s in samples] == [s.text for s in plain]


def test_other_counts_are_printed_and_the_order_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = make_files("ASS1")
    files["labels/0.txt"] += b"1 0.5 0.5 0.1 0.1\n"
    with caplog.at_level("WARNING"):
        samples, _ = read_archives("ASS1", {"x.zip": write_files(tmp_path / "raw/x.zip", files)})
    assert "differs from its publication" in caplog.text
    assert re.search(r"person\s+7 found,\s+6 published", caplog.text)
    assert samples[0].text == files["labels/0.txt"].decode()


@pytest.mark.parametrize("by", ["folders", "lists"])
def test_a_published_split_is_used(tmp_path: Path, by: str) -> None:
    files = make_files("ASS1")
    if by == "folders":
        files = {
            name.replace("/", "/train/" if int(Path(name).stem) < 6 else "/valid/"): data
            for name, data in files.items()
        }
    else:
        files["train.txt"] = "\n".join(f"data/images/{i}.jpg" for i in range(6)).encode()
        files["test.txt"] = "\n".join(f"data/images/{i}.jpg" for i in range(6, 10)).encode()
    (tmp_path / "ASS1.zip").write_bytes(make_zip(files))
    root = prepare("ASS1", tmp_path / "ASS1", archive=tmp_path / "ASS1.zip")
    assert {p.stem for p in root.glob("images/val/*")} == {"6", "7", "8", "9"}


def test_lists_that_name_the_same_images_are_no_split(tmp_path: Path) -> None:
    files = make_files("ASS1")
    files["train.txt"] = files["val.txt"] = "\n".join(f"{i}.jpg" for i in range(10)).encode()
    _, sides = read_archives("ASS1", {"x.zip": write_files(tmp_path / "raw/x.zip", files)})
    assert sides is None


# When it goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.md": b"x"}, "holds no image of ASS1"),
        ({k: v for k, v in make_files("ASS1").items() if k.endswith("jpg")}, "no label of them in YOLO format"),
    ],
)
def test_a_wrong_archive_is_one_line_and_leaves_nothing(
    files: dict, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "ASS1.zip").write_bytes(make_zip(files))
    assert main(["ASS1", "--archive", str(tmp_path / "ASS1.zip")], tmp_path) == 1
    assert message in caplog.text and "ASS1.zip" in caplog.text
    assert list((tmp_path / "datasets/ASS1").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ASS3"], "no data set named 'ASS3': choose ASS1 or ASS2"),
        (["ASS1", "--archive", "none.zip"], "--archive: no file none.zip"),
        (["ASS1", "--split", "none.csv"], "--split: no file none.csv"),
        (["--from", "labelme", "x", "--out", "y"], "choose coco or voc"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(arguments, tmp_path) == 1
    assert message in caplog.text and "\n" not in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    "arguments",
    [[], ["ASS1", "--check", "x.yaml"], ["--from", "coco", "x"], ["ASS1", "--fix"], ["all", "a", "--archive", "x"],
     ["--check", "x.yaml", "--imgsz", "12"]],
    ids=" ".join,
)  # fmt: skip
def test_arguments_that_do_not_go_together_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err


# The published training command ---------------------------------------------------------------------------------------

YOLO = shutil.which("yolo", path=sysconfig.get_path("scripts"))  # the stock script
TRAIN = ("detect", "train", "model=yolo11n.yaml", "data=datasets/ASS1/ASS1.yaml", "epochs=1", "imgsz=32", "batch=2",
         "device=cpu", "workers=0", "plots=False", "pretrained=False", "project=runs", "name=one")  # fmt: skip


def copy_checkout(root: Path, folder: Path) -> Path:
    (folder / "datasets/ASS1").mkdir(parents=True)
    shutil.copy(root / "datasets/ASS1/ASS1.yaml", folder / "datasets/ASS1")
    shutil.copy(root / "datasets/prepare.py", folder / "datasets")
    return folder


def test_training_fetches_what_it_lacks(both: dict[str, bytes], root: Path, tmp_path: Path, run: Run) -> None:
    folder = copy_checkout(root, tmp_path / "checkout")
    with RecordServer(both) as server:
        done = run(
            *TRAIN, cwd=folder, program=YOLO, ASS_RECORD_URL=server.url, ASS_CACHE=str(tmp_path / "other")
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/one/weights/last.pt").is_file()
    assert "differs from its publication" in done.stdout + done.stderr  # this process knows the real counts
    files = {Path(name).name for name in state(folder / "datasets/ASS1")}
    assert files == {"ASS1.yaml", "split.csv", *(f"{i}.{kind}" for i in range(10) for kind in ("jpg", "txt"))}


def test_no_network_is_one_line_that_names_the_ways_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RecordServer({}) as server:
        closed = server.url
    monkeypatch.setenv("ASS_RECORD_URL", closed)
    monkeypatch.chdir(copy_checkout(root, tmp_path / "checkout"))
    with pytest.raises(SystemExit) as end:
        entrypoint(" ".join(("yolo", *TRAIN)))
    line = str(end.value.code)
    assert line.startswith("yolo: ASS1: ") and "\n" not in line
    for part in (closed, "--archive", "data=datasets/ASS1-demo/ASS1-demo.yaml"):
        assert part in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_and_started_again_it_ends_in_the_same_state(
    both: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(folder: Path) -> int:
        """Prepare in a child process, which a kill ends without any clean-up."""
        if child := os.fork():
            return child
        try:
            cv2.setNumThreads(0)  # its threads did not come along
            os.environ["ASS_CACHE"] = str(folder / "cache")
            prepare("ASS1", folder / "ASS1")
        finally:
            os._exit(0 if (folder / "ASS1/images").exists() else 1)

    with RecordServer(both) as server:
        monkeypatch.setenv("ASS_RECORD_URL", server.url)
        began = time.monotonic()
        assert os.waitpid(start(tmp_path / "whole"), 0)[1] == 0
        took = time.monotonic() - began
        expected = state(tmp_path / "whole/ASS1")
        folder = tmp_path / "killed"
        for moment in np.linspace(0.02, 0.98, 25):
            child = start(folder)
            time.sleep(took * moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if (folder / "ASS1/images").exists():  # that was too late: all is there
                assert {k: v for k, v in state(folder / "ASS1").items() if not k.startswith(".")} == expected
                shutil.rmtree(folder / "ASS1/images")
        assert os.waitpid(start(folder), 0)[1] == 0
    assert state(folder / "ASS1") == expected
