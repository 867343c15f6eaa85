"""ASS1 and ASS2 from a local record: fetching, pairing, class order and split."""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from small_object.datasets import airport
from small_object.datasets.airport import prepare, read_samples
from small_object.errors import UserError
from tests.helpers.common import read_files, write_tree
from tests.helpers.record_server import RecordServer

COUNTS = {"ASS1": (7, 6, 4), "ASS2": (4, 9)}  # objects by class
IMAGES = {"ASS1": 10, "ASS2": 6}


def make_files(name: str, images: str = "images", labels: str = "labels", order: tuple[int, ...] = ()) -> dict:
    """Files of an archive: images of noise, and labels with these numbers of objects by class."""
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


def classes_in(root: Path) -> Counter[int]:
    return Counter(int(line.split()[0]) for p in root.glob("labels/*/*.txt") for line in p.read_text().splitlines())


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the published counts be those of the sets made here, and keep the archives in this test's folder."""
    for name, counts in COUNTS.items():
        monkeypatch.setitem(airport.SETS, name, dict(zip(airport.SETS[name], counts, strict=True)))
        monkeypatch.setitem(airport.NUM_IMAGES, name, IMAGES[name])
    monkeypatch.setenv("ASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordServer]:
    """A record with both sets, to which `ASS_RECORD_URL` points."""
    files = {
        "code.zip": make_zip({"train.py": b"print()"}),
        "ASS2 panoramas.zip": make_zip(make_files("ASS2", "ASS2/JPEGImages", "ASS2/Labels")),
        "ASS_1.zip": make_zip(make_files("ASS1", "data", "data")),
        "paper.pdf": b"%PDF",
    }
    with RecordServer(files) as server:
        monkeypatch.setenv("ASS_RECORD_URL", server.url)
        yield server


def prepare_files(name: str, root: Path, files: dict[str, bytes]) -> Path:
    """Prepare a data set from an archive with these files."""
    return prepare(name, root, archive=write_tree(root.parent, {"set.zip": make_zip(files)}) / "set.zip")


def images_in(root: Path, split: str) -> set[str]:
    return {path.stem for path in (root / "images" / split).iterdir()}


@pytest.mark.parametrize("name", COUNTS)
def test_a_set_comes_from_the_record_once(server: RecordServer, name: str, tmp_path: Path) -> None:
    root = prepare(name, tmp_path / name)
    assert sorted(p.name for p in root.iterdir()) == ["images", "labels", "split.csv"]
    assert classes_in(root) == dict(enumerate(COUNTS[name]))
    train, val = images_in(root, "train"), images_in(root, "val")
    assert train | val == {str(i) for i in range(IMAGES[name])} and val and not train & val
    source = make_files(name)
    for path in root.glob("*/*/*.*"):
        assert path.read_bytes() == source[f"{path.parents[1].name}/{path.name}"]
    asked = len(server.log)
    prepare(name, root)
    assert len(server.log) == asked  # it is in its place
    before = read_files(root)
    prepare(name, root, overwrite=True)
    assert read_files(root) == before
    assert len([path for path in server.log if path.endswith(".zip")]) == 1


def test_the_doi_leads_to_the_record(server: RecordServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASS_RECORD_URL")
    monkeypatch.setattr("pooch.downloaders.doi_to_url", lambda doi, **_: f"https://zenodo.org/records/{doi[-8:]}")
    monkeypatch.setattr("pooch.downloaders.ZenodoRepository.base_api_url", server.api)
    server.cuts = 2  # downloads that break off
    assert classes_in(prepare("ASS2", tmp_path / "ASS2")) == dict(enumerate(COUNTS["ASS2"]))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ASS2 panoramas.zip"]
    with pytest.raises(UserError, match=r"cannot be fetched from doi:10\.5281/zenodo\.10969885 \(.*no archive of ASS1"):
        server.files = {"ASS2.zip": b"", "../ASS1.zip": b"", "paper.pdf": b""}
        prepare("ASS1", tmp_path / "ASS1")


def test_a_wrong_checksum_is_one_line_and_leaves_nothing(server: RecordServer, tmp_path: Path) -> None:
    server.wrong_md5 = True
    with pytest.raises(UserError, match=r"MD5 hash of downloaded file \(ASS_1\.zip\) does not match") as error:
        prepare("ASS1", tmp_path / "ASS1")
    assert "--archive PATH" in str(error.value) and "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == [] and not (tmp_path / "ASS1").exists()


@pytest.mark.parametrize(
    "name, files, wanted",
    [
        ("ASS1", "ASS2.rar ass-1.7z notes.txt", "ass-1.7z"),
        ("ASS2", "ASS1.zip ASS2_images.zip ASS2_labels.tar.gz", "ASS2_images.zip ASS2_labels.tar.gz"),
        ("ASS1", "everything.ZIP ASS2.zip a.zip.txt", "everything.ZIP"),
        ("ASS2", "ASS1+ASS2.zip", "ASS1+ASS2.zip"),
        ("ASS1", "Class12.zip ASS1.zip", "ASS1.zip"),
    ],
)
def test_the_archives_are_chosen_by_their_names(name: str, files: str, wanted: str) -> None:
    assert airport._choose_archives(name, files.split()) == wanted.split()


@pytest.mark.parametrize("name, other", [("ASS1", "ASS2"), ("ASS2", "ASS1")])
def test_the_content_tells_where_the_name_does_not(name: str, other: str, tmp_path: Path) -> None:
    files = {f"all/{s.lower()}/{key}": data for s in COUNTS for key, data in make_files(s).items()}
    assert classes_in(prepare_files(name, tmp_path / "both", files)) == dict(enumerate(COUNTS[name]))
    assert classes_in(prepare_files(name, tmp_path / "one", make_files(name)))
    with pytest.raises(UserError, match=f"holds {name} by its classes, not {other}"):
        prepare_files(other, tmp_path / "wrong", make_files(name))
    assert list((tmp_path / "wrong").iterdir()) == []


@pytest.mark.parametrize(
    "images, labels",
    [("images", "labels"), ("ASS1/JPEGImages", "ASS1/Labels"), ("top/Images/cam", "top/labels/cam"), ("imgs", "txt")],
)
def test_pairs_are_found_by_stem_whatever_the_folders(images: str, labels: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "x.zip", make_files("ASS1", images, labels))
    samples = read_samples("ASS1", tmp_path)
    source = make_files("ASS1")
    assert not any(sample.side for sample in samples) and len(samples) == 10
    assert all(s.text.encode() == source[f"labels/{s.image.stem}.txt"] for s in samples)


def test_of_labels_with_one_stem_that_of_the_same_folder_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = ["cam1/images/A1.JPG", "cam2/images/a1.jpg", "cam3/images/a1.jpg"]
    line = " 0.5 0.5 0.1 0.1\n"
    labels = {f"cam{k}/labels/a1.txt": f"{c}{line}1{line}".encode() for k, c in ((1, 0), (2, 1), (4, 2))}
    write_tree(tmp_path / "x.zip", dict.fromkeys(images, b"") | labels | {"readme.txt": b"hello"})
    samples = read_samples("ASS1", tmp_path)
    assert {sample.name: sample.text[:1] for sample in samples} == {
        "cam1_images_A1.JPG": "0", "cam2_images_a1.jpg": "1", "cam3_images_a1.jpg": "2"
    }  # fmt: skip
    (tmp_path / "x.zip/cam2/labels/a1.txt").rename(tmp_path / "x.zip/cam2/labels/a2.txt")
    samples = read_samples("ASS1", tmp_path)
    assert sorted(sample.text[:1] for sample in samples) == ["", "0", "2"]
    assert "1 images without a label file" in caplog.text and "1 label files without an image" in caplog.text


@pytest.mark.parametrize("stated", [None, "classes.txt", "data.yaml"])
def test_another_class_order_is_put_right(tmp_path: Path, stated: str | None, caplog: pytest.LogCaptureFixture) -> None:
    files = make_files("ASS1", order=(2, 0, 1))  # airplanes are 2, persons 0, trucks 1
    if stated == "classes.txt":
        files[stated] = b"People\nTrucks\nAircraft\n"
    elif stated:
        files[stated] = b"names: {0: person, 1: truck, 2: airplane}\n"
    write_tree(tmp_path / "x.zip", files)
    with caplog.at_level("INFO"):
        samples = read_samples("ASS1", tmp_path)
    source = make_files("ASS1")
    assert [s.text.encode() for s in samples] == [source[f"labels/{s.image.stem}.txt"] for s in samples]
    assert "classes reordered" in caplog.text and "as published" in caplog.text


def test_other_counts_are_printed_and_the_order_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = make_files("ASS1")
    files["labels/0.txt"] += b"1 0.5 0.5 0.1 0.1\n"
    write_tree(tmp_path / "x.zip", files)
    samples = read_samples("ASS1", tmp_path)
    assert "differs from its publication" in caplog.text
    assert re.search(r"person\s+7 found,\s+6 published", caplog.text)
    assert samples[0].text == files["labels/0.txt"].decode()


@pytest.mark.parametrize("by", ["folders", "lists", "lists that overlap"])
def test_a_published_split_is_used(tmp_path: Path, by: str) -> None:
    files = make_files("ASS1")
    if by == "folders":
        folders = {name: "/train/" if int(Path(name).stem) < 6 else "/valid/" for name in files}
        files = {name.replace("/", folders[name]): data for name, data in files.items()}
    else:
        files["train.txt"] = "\n".join(f"data/images/{i}.jpg" for i in range(6)).encode()
        files["test.txt"] = "\n".join(f"data/images/{i}.jpg" for i in range(6, 10)).encode()
        files["val.txt"] = b"0.jpg" if by == "lists that overlap" else b""
    root = prepare_files("ASS1", tmp_path / "ASS1", files)
    assert (images_in(root, "val") == {"6", "7", "8", "9"}) == (by != "lists that overlap")


@pytest.mark.parametrize(
    "files, message",
    [
        ({"a.md": b"x"}, "holds no image of ASS1"),
        ({k: v for k, v in make_files("ASS1").items() if k.endswith("jpg")}, "no labels in YOLO format"),
    ],
)
def test_a_wrong_archive_is_one_line_and_leaves_what_was_there(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    root = prepare_files("ASS1", tmp_path / "ASS1", make_files("ASS1"))
    before = read_files(root)
    (tmp_path / "wrong.zip").write_bytes(make_zip(files))
    with pytest.raises(UserError, match=message) as error:
        prepare("ASS1", root, archive=tmp_path / "wrong.zip", overwrite=True)
    assert "wrong.zip" in str(error.value) and "\n" not in str(error.value)
    assert read_files(root) == before


def test_no_network_is_one_line_that_names_the_ways_out(server: RecordServer, tmp_path: Path) -> None:
    server.__exit__()
    with pytest.raises(UserError, match=server.url) as error:
        prepare("ASS1", tmp_path / "ASS1")
    line = str(error.value)
    assert "no connection" in line and "--archive" in line and "ASS1-demo/ASS1-demo.yaml" in line and "\n" not in line
