"""Batch jobs on Ray Data, against a plain loop of `model.predict`."""

import contextlib
import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import torch
from ultralytics import YOLO
from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER

from tests.helpers.common import Run, build_detector, draw_blocks, write_tree
from tests.helpers.odd_images import READABLE, UNREADABLE, write_odd_images
from tests.ultralytics.models.test_sliced_prediction import IMGSZ, TILE, same

pytest.importorskip("ray.data", reason="Ray is missing: pip install 'small-object-detection[batch]'")
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from small_object.batch.job import allocate, begin, run
from small_object.batch.store import SCHEMA, Output, Source
from small_object.batch.worker import Job, Journal, Task, Worker, model_digest
from small_object.errors import UserError
from small_object.images import UnreadableImageError, readable_name

CONF = 0.72
OPTIONS = {"imgsz": IMGSZ, "conf": CONF, "slice": TILE, "slice_overlap": 0.25, "slice_batch": 3, "slice_iou": 0.2}
OPTIONS |= {"max_det": 1000, "device": "cpu", "batch": 2, "part": 4, "workers": 1}
EXIF = bytes.fromhex("ffe1002245786966000049492a00080000000100120103000100000006000000000000000000")  # turned by 90°
ODD_NAMES = "a b.png", "é 飞机.jpg", "quo'te\".png", "new\nline.png", "deep/er/100%#?.png"


@pytest.fixture(autouse=True)
def own_process() -> Iterator[None]:
    """Undo what a worker sets for its process, where a test runs one in this."""
    level, threads = LOGGER.level, torch.get_num_threads()
    yield
    LOGGER.setLevel(level)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_detector(folder, 2).save(folder / "tiny.pt")
    return folder / "tiny.pt"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Start Ray once for all; workers know the user of the S3 stand-in."""
    before = dict(os.environ)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_worker_niceness="0")
    os.environ.update(AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="secret", AWS_EC2_METADATA_DISABLED="true")
    small = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", logging_level="ERROR", **small)
    yield
    ray.shutdown()
    os.environ.clear()  # Ray's own variables would keep others from starting it again
    os.environ.update(before)


def draw(file: Path, seed: int, height: int = 160, width: int = 256) -> Path:
    """Write blocks of noise, in which the tiny model finds much."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return write_tree(file.parent, {file.name: cv2.resize(noise, (width, height))}) / file.name


def draw_images(folder: Path) -> Path:
    """Write images of several sizes, of odd names, one turned by EXIF, one grey, one without objects."""
    for i, name in enumerate(ODD_NAMES):
        draw(folder / name, i)
    draw(folder / "small.png", 10, 64, 96)
    draw(folder / "high.png", 11, 256, 160)
    turned = draw(folder / "turned.jpg", 12)
    turned.write_bytes(turned.read_bytes()[:2] + EXIF + turned.read_bytes()[2:])
    cv2.imwrite(str(folder / "grey.png"), cv2.imread(str(draw(folder / "grey.png", 13)), cv2.IMREAD_GRAYSCALE))
    cv2.imwrite(str(folder / "nothing.png"), np.full((160, 256, 3), 150, np.uint8))
    (folder / "notes.txt").write_text("not an image")
    return folder


def build_job(weights: Path, source: object, out: object, **given: Any) -> Job:
    return Job(str(weights), str(source), str(out), **OPTIONS | given)


def command(job: Job) -> list[str]:
    """Return the arguments with which Python runs a job in a process of its own."""
    given = {f"--{name.replace('_', '-')}": str(value) for name, value in vars(job).items() if value is not None}
    del given["--save-json"]  # takes no value
    return ["-m", "small_object.cli", "batch", *itertools.chain(*given.items())]


def rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each image, read by none of the fork's code; each image must be in one file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((out / "parts").iterdir()):
        of_file: dict[str, list[dict[str, Any]]] = {}
        for row in pq.read_table(file).to_pylist():
            of_file.setdefault(row["image"], []).append(row)
        assert of_file and not found.keys() & of_file.keys(), "an image is in two parts"
        found |= of_file
    return found


def check_json(out: Path, ids: dict[str, int | str]) -> None:
    """Compare `predictions.json` with the rows of the parts; images have these ids."""
    found = json.loads((out / "predictions.json").read_text())
    kept = [
        row for file in sorted((out / "parts").iterdir()) for row in pq.read_table(file).to_pylist() if row["class"]
    ]
    assert [row["file_name"] for row in found] == [row["image"] for row in kept] and len(found) > 9
    for row, part in zip(found, kept, strict=True):
        assert (row["image_id"], row["category_id"]) == (ids[part["image"]], part["class_id"] + 1)
        x1, y1, x2, y2 = (part[name] for name in ("x1", "y1", "x2", "y2"))
        assert [*row["bbox"], row["score"]] == pytest.approx([x1, y1, x2 - x1, y2 - y1, part["score"]], abs=1e-3)


def read_parts(out: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (out / "parts").glob("*.parquet")}


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def image_boxes(image: list[dict[str, Any]]) -> torch.Tensor:
    columns = "x1", "y1", "x2", "y2", "score", "class_id"
    return torch.tensor([[row[name] for name in columns] for row in image if row["score"] is not None])


def expected(weights: Path, file: Path, **more: Any) -> Any:
    """Return what prediction of a file alone gives."""
    options = {name: value for name, value in OPTIONS.items() if name not in {"batch", "part", "workers"}}
    return YOLO(weights).predict([file], verbose=False, **options, **more)[0]


def test_a_region_leaves_out_what_lies_outside_and_images_of_another_shape(weights: Path, tmp_path: Path) -> None:
    images, out, roi = tmp_path / "in", tmp_path / "out", tmp_path / "right.png"
    images.mkdir()
    cv2.imwrite(str(roi), np.repeat(np.uint8([[0, 255]]), 128, 1).repeat(160, 0))
    cv2.imwrite(str(images / "a.png"), draw_blocks(256, 160, 21, 34))
    cv2.imwrite(str(images / "b.png"), draw_blocks(200, 160, 21, 34))
    told, found = run(build_job(weights, images, out, slice_roi=str(roi))), rows(out)
    assert [each["image"] for each in told["unreadable"]] == ["b.png"]
    assert "aspect ratio" in told["unreadable"][0]["reason"]
    plain = expected(weights, images / "a.png", slice_roi=str(roi))
    assert len(found["a.png"]) == len(plain) > 0 and min(row["x1"] + row["x2"] for row in found["a.png"]) >= 256


def test_results_are_those_of_a_loop_and_unreadable_images_are_tried_again(weights: Path, tmp_path: Path) -> None:
    images, out = draw_images(tmp_path / "in"), tmp_path / "out"
    good = (images / "small.png").read_bytes()
    reasons = {
        "cut.png": "can't be read as an image; it may be damaged",
        "vanished.jpg": "can't be opened: No such file or directory",
        "\\udcff.png": "would be stored as %FF.png, the name of another image; rename it",
    }
    (images / "cut.png").write_bytes(good[:2000])
    (images / "vanished.jpg").symlink_to("nowhere")
    write_tree(images, dict.fromkeys(("\udcff.png", "%FF.png", "._small.png", ".hidden/small.png"), good))
    job = build_job(weights, images, out, save_json=True)
    told, found = run(job), rows(out)
    check_json(out, {name: Path(name).stem for name in found})
    assert {each["image"]: each["reason"] for each in told["unreadable"]} == reasons
    names = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.suffix in (".png", ".jpg")}
    names -= reasons.keys() | {"\udcff.png", "._small.png", ".hidden/small.png"}
    assert found.keys() == names and len(names) == len(ODD_NAMES) + 6
    detections, tiles = Counter(), 0
    for name, image in found.items():
        plain = expected(weights, images / name)
        if name == "nothing.png":
            assert len(plain.boxes) == 0
            assert image == [
                dict.fromkeys(("class", "class_id", "score", "x1", "y1", "x2", "y2"))
                | {"image": name, "width": 256, "height": 160, "tiles_run": 8, "tiles_skipped": 0}
            ]
        else:
            same(image_boxes(image), plain.boxes.data)
        assert all(row["class"] in (None, f"class{row['class_id']}") for row in image)
        shown = {(row["height"], row["width"], row["tiles_run"], row["tiles_skipped"]) for row in image}
        assert shown == {(*plain.orig_shape, *(plain.tiles or (0, 0)))}
        detections.update(row["class"] for row in image if row["class"])
        tiles += image[0]["tiles_run"]
    assert found["turned.jpg"][0]["height"] == 256 and found["small.png"][0]["tiles_run"] == 0 < tiles
    assert told == report(out)
    assert told["detections"] == dict(detections) and told["tiles_run"] == tiles
    assert [told[key] for key in ("images", "done", "done_now", "missing", "duplicated")] == [14, 11, 11, 0, 0]

    (images / "cut.png").write_bytes(good)
    told = run(job)
    assert rows(out).keys() == {*names, "cut.png"}
    assert {each["image"] for each in told["unreadable"]} == reasons.keys() - {"cut.png"}
    for file in images.iterdir():
        if file.is_symlink() or (file.is_file() and file.name != "small.png"):
            file.unlink()
    told = run(job)  # nothing is left to do
    keys = "images", "done", "done_before", "done_now", "no_longer_in_source", "missing", "duplicated"
    assert [told[key] for key in keys] == [2, 2, 2, 0, 10, 0, 0] and told["unreadable"] == []


def test_odd_files(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are done or unreadable; a camera's bits are part of the job; names need not be UTF-8."""
    odd = write_odd_images(tmp_path / "in").rename(tmp_path / "caf\udce9")
    job = build_job(weights, odd, tmp_path / "out", slice=0)
    told, found = run(job), rows(tmp_path / "out")
    assert found.keys() == {readable_name(name) for name in READABLE}
    unreadable = {each["image"]: each["reason"] for each in told["unreadable"]}
    assert unreadable.keys() == UNREADABLE.keys()
    assert all(re.search(UNREADABLE[name], reason) for name, reason in unreadable.items())
    assert (told["images"], told["done_now"]) == (len(READABLE | UNREADABLE.keys()), len(READABLE))
    assert run(job)["done_before"] == len(READABLE)
    with pytest.raises(UserError, match="its name is not UTF-8"):
        run(replace(job, out=str(odd / "out")))
    monkeypatch.setenv("SMALL_OBJECT_BITS", "12")
    with pytest.raises(UserError, match=r"was started with SMALL_OBJECT_BITS None \(now 12\)"):
        run(job)
    (odd / "list.txt").write_bytes(b"deep12.tif\ncaf\xe9.png\nfloat.tif\n")
    told = run(replace(job, source=str(odd / "list.txt"), out=str(tmp_path / "12")))
    assert rows(tmp_path / "12").keys() == {"deep12.tif", "caf%E9.png"}  # workers of a Ray that knew no bits
    assert told["arguments"]["SMALL_OBJECT_BITS"] == 12 and told["unreadable"][0]["image"] == "float.tif"


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[Any, str]]:
    """Return a client of an S3 stand-in, with the bucket `year`, and the options of a URL that reaches it."""
    server = pytest.importorskip("moto.server", reason="moto is missing: pip install 'moto[server]'")
    boto3 = pytest.importorskip("boto3")
    moto = server.ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="year")
    yield client, f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    moto.stop()


def test_lists_and_s3(weights: Path, tmp_path: Path, s3: tuple[Any, str]) -> None:
    client, options = s3
    local = draw(tmp_path / "lists/near/a b.png", 0)
    far = draw(tmp_path / "far.png", 1)
    keys = "2024/a.jpg", "2024/01/b c?.png", "2024/empty.png", "2025/d.png"
    for i, key in enumerate(keys):
        content = b"" if "empty" in key else draw(tmp_path / f"s3/{i}{Path(key).suffix}", i + 2).read_bytes()
        client.put_object(Bucket="year", Key=key, Body=content)
    for key in ("2024/notes.txt", "2024/._a.jpg", "2024/.hidden/a.jpg"):
        client.put_object(Bucket="year", Key=key, Body=b"not an image")

    prefix = Source(f"s3://year/2024?{options}")
    names = [f"s3://year/{key}" for key in sorted(keys[:3])]
    assert prefix.names() == (names, {})
    for name, file in ((f"s3://year/{keys[0]}", "0.jpg"), (f"s3://year/{keys[1]}", "1.png")):
        assert np.array_equal(prefix.read(name, cv2.IMREAD_COLOR), cv2.imread(str(tmp_path / "s3" / file)))
    with pytest.raises(UnreadableImageError, match="is empty"):
        prefix.read(f"s3://year/{keys[2]}", cv2.IMREAD_COLOR)

    url, gone = f"s3://year/2025/d.png?{options}", f"s3://year/2025/gone.png?{options}"
    lines = tmp_path / "lists/list.txt"
    lines.write_text(f"\ufeff near/a b.png \n\n{url}\n{gone}\n{far}\nmissing.png\n{url}\n", encoding="utf-8")
    job = build_job(weights, lines, f"s3://year/found?{options}", save_json=True)
    told = run(job)
    for entry in client.list_objects_v2(Bucket="year", Prefix="found/")["Contents"]:
        content = client.get_object(Bucket="year", Key=entry["Key"])["Body"].read()
        write_tree(tmp_path / "copy", {entry["Key"].removeprefix("found/"): content})
    found = rows(tmp_path / "copy")
    assert found.keys() == {"near/a b.png", url, str(far)}
    for name, file in (("near/a b.png", local), (url, tmp_path / "s3/3.png"), (str(far), far)):
        same(image_boxes(found[name]), expected(weights, file).boxes.data)
    check_json(tmp_path / "copy", {"near/a b.png": "a b", url: "d", str(far): "far"})
    assert told == report(tmp_path / "copy")
    assert [each["image"] for each in told["unreadable"]] == ["missing.png", gone] and told["images"] == 5
    lines.write_text(f"{far}\nnear/a b.png\n{url}")
    told = run(job)
    assert (told["done_before"], told["done_now"], len(told["unreadable"])) == (3, 0, 0)


def test_other_work_is_refused(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of these starts Ray or changes the output."""
    draw(tmp_path / "in/0.png", 0)
    job, out = build_job(weights, tmp_path / "in", tmp_path / "out"), Output(str(tmp_path / "out"))
    (region := tmp_path / "region.yaml").write_text("polygons: [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]")
    first = replace(job, slice=[64, 96], slice_iou=0.5, slice_roi=str(region))
    begin(out, first, model_digest(weights))
    nothing = {"image": ["0.png", "a/0.jpg"], "class": [None] * 2, "score": [None] * 2}
    out.write_part("a", {name: [0] * 2 for name in SCHEMA.names} | nothing)
    assert run(replace(first, save_json=True))["done"] == 1  # nothing is left to do
    assert out.read("predictions.json") == b"[]\n" and "1 images share an image_id" in caplog.text
    draw(tmp_path / "in/1.png", 1)
    files = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "other.pt").write_bytes(weights.read_bytes() + b" ")
    (tmp_path / "nothing").mkdir()

    def refused(*words: str, **changes: Any) -> None:
        with pytest.raises(UserError) as caught:
            run(replace(first, **{name: str(v) if isinstance(v, Path) else v for name, v in changes.items()}))
        text = str(caught.value)
        assert "\n" not in text and all(word in text for word in words), text

    refused("gone.pt", "no such file", model=tmp_path / "gone.pt")
    refused(f"started with the model {weights}", "another --out", model=tmp_path / "other.pt")
    refused(f"started with --conf {CONF} (now 0.5)", "--slice-overlap 0.25 (now 0.3)", conf=0.5, slice_overlap=0.3)
    refused("--slice-iou 0.5 (now 0.4)", slice_iou=0.4)
    refused(f"started with --source {tmp_path / 'in'}", source=tmp_path)
    text = region.read_text()
    region.write_text(text.replace("0.5", "0.6"))
    refused("started with other contents of --slice-roi")
    region.write_text(text)
    refused("no such folder", source=tmp_path / "nowhere")
    refused("must be a folder", source=weights)
    refused("holds no image", source=tmp_path / "nothing")
    refused("only folders", source="https://example.com/a.jpg")
    with Output(str(tmp_path / "out")).lock("another"):
        refused("another job is writing to it")
    refused("must be a folder", out=weights)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*.*")} == files
    (tmp_path / "out/job.json").write_text("{")
    refused("no readable job.json")
    with pytest.raises(UserError, match=r"tiny\.pt/out: can't be written: Not a directory"):
        run(replace(first, out=str(weights / "out")))


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "expected"),
    [
        (2, 0, {}, (1, "cpu", 2, 0)),
        (32, 0, {}, (16, "cpu", 2, 0)),
        (8, 0, {"workers": 8}, (8, "cpu", 1, 0)),
        (64, 8, {}, (8, "cuda", 4, 1)),
        (16, 2, {"workers": 4}, (4, "cuda", 4, 0.5)),
        (16, 2, {"device": "cpu"}, (8, "cpu", 2, 0)),
        (2, 0, {"workers": 5}, "--workers 5: Ray has 2 CPUs"),
        (2, 0, {"device": "cuda"}, "--device cuda: Ray finds no GPU"),
    ],
)
def test_resources_of_the_workers(cpus: int, gpus: int, asked: dict[str, Any], expected: Any) -> None:
    job, resources = Job("m", "s", "o", **asked), {"CPU": cpus, "GPU": gpus}
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            allocate(job, resources)
    else:
        assert allocate(job, resources) == expected


def find_workers(process: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "MapWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def until(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for something and return it."""
    end = time.monotonic() + seconds
    while not (result := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return result


def block(file: Path) -> int:
    """Write a file that others wait to open until the returned descriptor is closed (for up to 45 s)."""
    file.write_text("not an image")
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # which tells that another waits
    descriptor = os.open(file, os.O_WRONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return descriptor


def wait_for_reader(blocked: int) -> None:
    until(lambda: fcntl.fcntl(blocked, fcntl.F_GETLEASE) != fcntl.F_WRLCK)


def test_killed_workers_lose_and_double_nothing(weights: Path, tmp_path: Path) -> None:
    """Another worker runs the images of the killed one; those that it held run one by one."""
    for i in range(9):
        draw(tmp_path / f"in/{i}.png", i)
    blocked = block(tmp_path / "in/4b.png")

    def kill() -> None:
        wait_for_reader(blocked)
        (worker,) = find_workers(os.getpid())
        worker.kill()
        worker.wait()
        os.close(blocked)

    killer = threading.Thread(target=kill)
    killer.start()
    told = run(build_job(weights, tmp_path / "in", tmp_path / "out"))
    killer.join()
    found = rows(tmp_path / "out")
    assert found.keys() == {f"{i}.png" for i in range(9)}
    assert told["unreadable"] == [{"image": "4b.png", "reason": "can't be read as an image; it may be damaged"}]
    for name in ("4.png", "5.png", "8.png"):  # in its batch, in its part, in another part
        same(image_boxes(found[name]), expected(weights, tmp_path / "in" / name).boxes.data)


def test_stopped_jobs_resume(weights: Path, tmp_path: Path) -> None:
    """The job's own process is interrupted, started again, killed, and started again."""
    for i in range(9):
        draw(tmp_path / f"in/{i}.png", i)
    address = ray.get_runtime_context().gcs_address
    job = build_job(weights, tmp_path / "in", tmp_path / "out", part=2, address=address)
    script = [sys.executable, *command(job)]
    files: dict[Path, bytes] = {}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else a child of a background process ignores it
    for stop in (signal.SIGINT, signal.SIGKILL):
        blocked, log = block(tmp_path / "in/4b.png"), tmp_path / f"{stop}.txt"
        with log.open("w") as stream:
            process = subprocess.Popen(script, stdout=stream, stderr=stream, start_new_session=True)
        try:
            wait_for_reader(blocked)
            workers = find_workers(os.getpid())
            assert workers
            if stop == signal.SIGINT:
                os.killpg(process.pid, stop)  # as a terminal does
            else:
                process.kill()
            status = process.wait(60)
            psutil.wait_procs(workers, 60)
            os.close(blocked)
            assert not any(worker.is_running() for worker in workers)
        finally:
            process.kill()
        if stop == signal.SIGINT:
            assert status == 130 and "images done in this run" in log.read_text(), log.read_text()
            assert "Traceback" not in log.read_text()
        before, files = files, read_parts(tmp_path / "out")
        assert before.items() <= files.items()
        done = {row["image"] for file in files for row in pq.read_table(file).to_pylist()}
        assert len(done) % 2 == 0 and not done & {"4.png", "4b.png"}  # whole parts, in no certain order
    (tmp_path / "out/parts/.123-half.parquet").write_bytes(b"PAR1")
    (tmp_path / "out/parts/damaged.parquet").write_bytes(b"PAR1")
    draw(tmp_path / "in/4b.png", 20)
    assert run(replace(job, part=4))["done_before"] == len(done)
    assert rows(tmp_path / "out").keys() == {*(f"{i}.png" for i in range(9)), "4b.png"}
    assert files.items() <= read_parts(tmp_path / "out").items()


def test_a_cluster_of_two_machines(weights: Path, tmp_path: Path, run: Run) -> None:
    from ray.cluster_utils import Cluster

    for i in range(6):
        draw(tmp_path / f"in/{i}.png", i)
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    try:
        cluster.add_node(**small)
        job = build_job(weights, tmp_path / "in", tmp_path / "out", address=cluster.address, part=2, workers=2)
        result = run(*command(job), cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert rows(tmp_path / "out").keys() == {f"{i}.png" for i in range(6)}
        said = [line for line in (result.stdout + result.stderr).splitlines() if line and "images: " not in line]
        assert [line for line in said if "images done" not in line] == []  # nothing of Ray's
    finally:
        cluster.shutdown()


def build_task(weights: Path, folder: Path) -> Task:
    return Task(build_job(weights, folder / "in", folder / "out", batch=4), model_digest(weights), "me", 1, "cpu", 1, 0)


def test_images_are_run_together_and_those_that_fail_alone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, (height, width) in enumerate([(160, 256), (160, 256), (64, 96), (160, 264), (160, 256), (160, 256)]):
        draw(tmp_path / f"in/{i}.png", i, height, width)
    names = [f"{i}.png" for i in range(6)]
    worker, calls = Worker(build_task(weights, tmp_path), Journal.remote()), []
    predict, failing = worker._predict, False

    def watched(images: list[np.ndarray]) -> list[Any]:
        calls.append([image.shape[:2] for image in images])
        if failing and (len(images) > 1 or images[0].shape[1] == 264):
            raise MemoryError("not enough\nmemory")
        return predict(images)

    monkeypatch.setattr(worker, "_predict", watched)
    large, small, other = (160, 256), (64, 96), (160, 264)
    with Output(str(tmp_path / "out")).lock("me"):
        for failing in (False, True):
            calls.clear()
            (told,) = worker(pa.table({"part": ["a"], "names": [names]}))["summary"].to_pylist()
            summary = json.loads(told)
            found = rows(tmp_path / "out")
            if not failing:
                assert calls == [[large, large], [small], [other], [large, large]]
                assert summary["images"] == 6 and found.keys() == {*names}
            else:
                apart = [[large, large], [large], [large]]
                assert calls == [*apart, [small], [other], *apart]
                assert summary["unreadable"] == {"3.png": "can't be run: not enough memory"}
                assert summary["images"] == 5 and found.keys() == {*names} - {"3.png"} and not summary["error"]


@pytest.fixture
def started(weights: Path, tmp_path: Path) -> tuple[Task, Any]:
    """Return the task of a job of an image, which holds the lock, and a journal."""
    draw(tmp_path / "in/0.png", 0)
    Output(str(tmp_path / "out")).write("run", [b"me"])
    return build_task(weights, tmp_path), Journal.remote()


def run_part(task: Task, journal: Any) -> dict[str, Any]:
    (summary,) = Worker(task, journal)(pa.table({"part": ["a"], "names": [["0.png"]]}))["summary"].to_pylist()
    return json.loads(summary)


def test_an_image_over_which_three_workers_died_is_left_out(started: tuple[Task, Any], tmp_path: Path) -> None:
    journal = started[1]
    for deaths in range(3):
        ray.get(journal.hold.remote("a", ["0.png"]))
        assert ray.get(journal.open.remote("a", ["0.png", "1.png"])) == {"0.png": deaths + 1}
    assert run_part(*started)["unreadable"] == {"0.png": "3 workers died on it"}
    assert not (tmp_path / "out/parts").exists()


@pytest.mark.parametrize("case", ["another job", "another model", "no model", "no memory", "stock Ultralytics"])
def test_a_worker_that_must_not_go_on_says_why(
    case: str, started: tuple[Task, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, journal = started
    if case == "another job":
        Output(task.job.out).write("run", [b"another"])
    elif case == "another model":
        task = replace(task, digest="0")
    elif case == "no model":
        broken = tmp_path / "broken.pt"
        broken.write_text("not a model")
        task = build_task(broken, tmp_path)
    elif case == "no memory":
        for _ in range(3):
            ray.get(journal.starting.remote())
    else:
        monkeypatch.delattr(Results, "num_full")
    said = {"another job": "taken it over", "another model": "different on", "no model": r"broken\.pt: .+"}
    said["no memory"] = "workers die while they load it"
    error = run_part(task, journal)["error"]
    assert re.search(said.get(case, "runs stock Ultralytics"), error) and "\n" not in error
    assert not (tmp_path / "out/parts").exists()
