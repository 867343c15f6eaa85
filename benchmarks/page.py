"""Measures how smooth the comparison page is: python -m benchmarks.page --data DATA.yaml.

The page shows the validation images of a data set with synthetic detections: most objects, shifted a little, and some
random boxes. It is opened in headless Chromium without a GPU, which is slower than a user's browser.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from ultralytics.data.utils import IMG_FORMATS, img2label_paths
from ultralytics.engine.results import Results
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import imread

from benchmarks.common import RESULTS, build_parser, commit, execute, markdown_table, module_command
from docs.tools.browser import SHOWN, browser, find_missing, open_page, wait_until
from small_object.compare.page import FOLDER, ComparisonPage, read_truth
from small_object.datasets.dataset import read_data_yaml
from small_object.errors import UserError
from small_object.files import write_file

# Resolves with the milliseconds between the frames that the browser shows.
FRAMES = """async count => {
    const times = [];
    let last = await new Promise(requestAnimationFrame);
    for (let i = 0; i < count; i++) {
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
    }
    return times;
}"""
PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def write_page(folder: Path, data: dict[str, Any], models: int, max_images: int | None) -> tuple[Path, dict[str, Any]]:
    """Write the page; return it and the description of its content."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in Path(data["val"]).iterdir() if path.suffix[1:].lower() in IMG_FORMATS)
    files = repeat(files, max_images, folder) if max_images else files
    page = ComparisonPage(folder, "measured", names=data["names"])
    pixels, boxes, seconds = [], 0, 0.0
    for file in TQDM(files, desc="writing the page"):
        image = imread(file)
        height, width = image.shape[:2]
        pixels.append(height * width / 1e6)
        truth = read_truth(file, width, height)
        for number in range(models):
            rows = synthetic_detections(np.zeros((0, 5)) if truth is None else truth, width, height, rng)
            boxes += len(rows)
            result = Results(image, str(file), data["names"], boxes=torch.from_numpy(rows), speed={"inference": 0.0})
            start = time.perf_counter()
            page.add(f"model {number + 1}", result, file)
            seconds += time.perf_counter() - start
    start = time.perf_counter()
    written = page.write()
    seconds += time.perf_counter() - start
    if written is None:
        raise UserError(f"{data['yaml_file']}: no images to show")
    size = written.stat().st_size / 1e6
    scripts = [file.stat().st_size for file in (folder / FOLDER).glob("*.js")]
    return written, {
        "images": len(files), "megapixels per image": f"{statistics.median(pixels):.1f}",
        "models": models, "detections": boxes, "index.html, MB": f"{size:.1f}",
        "other data, MB": f"{sum(scripts) / 1e6:.1f} in {len(scripts)} files",
        "writing it, ms per image": f"{1e3 * seconds / len(files):.0f}",
    }  # fmt: skip


def repeat(files: list[Path], count: int, folder: Path) -> list[Path]:
    """Return `count` of the files, or links to them and their labels if there are fewer."""
    if count <= len(files):
        return files[:count]
    links = []
    for kind, sources in (("labels", img2label_paths([str(file) for file in files])), ("images", files)):
        (folder / kind).mkdir()
        links = [folder / kind / f"{i:05d}{Path(sources[i % len(files)]).suffix}" for i in range(count)]
        for i, link in enumerate(links):
            link.symlink_to(Path(sources[i % len(files)]).absolute())
    return links


def synthetic_detections(truth: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return rows (x1, y1, x2, y2, score, class) by falling score: 3 in 4 objects and 10 random boxes."""
    kept = truth[rng.random(len(truth)) < 0.75]
    sides = np.tile(kept[:, 3:] - kept[:, 1:3], 2)
    near = kept[:, 1:] + rng.normal(0, 0.06, sides.shape) * sides
    corners = rng.uniform(0, 0.97, (10, 2)) * (width, height)
    boxes = np.vstack((near, np.column_stack((corners, corners + 20))))
    classes = np.concatenate((kept[:, 0], np.zeros(10)))
    return np.column_stack((boxes, rng.uniform(0.25, 1, len(boxes)), classes))


@contextmanager
def frames(page: Any, count: int) -> Iterator[list[float]]:
    """Yield a list that, after the block, holds the milliseconds between the frames shown while it ran."""
    times: list[float] = []
    page.evaluate(f"() => {{ window.measured = ({FRAMES})({count}); }}")
    yield times
    times += page.evaluate("() => window.measured")


def measure(file: Path) -> dict[str, Any]:
    """Open the page and use it; return the measurements."""
    with browser() as chromium:
        start = time.perf_counter()
        page, said = open_page(chromium, file, 1600, 1000)
        wait_until(page, SHOWN)
        first = time.perf_counter() - start
        loaded = "[...document.querySelectorAll('#strip img')].filter(image => image.naturalWidth > 0).length"
        thumbnails = page.evaluate(loaded)
        box = page.locator(".view").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def timed(action: Callable[[], Any], new_image: bool = False) -> float:
            """Return the milliseconds of an action until the browser has shown its effect."""
            start = time.perf_counter()
            action()
            if new_image:
                wait_until(page, SHOWN)
            else:
                page.evaluate(PAINTED)
            return 1e3 * (time.perf_counter() - start)

        page.mouse.move(x, y)
        with frames(page, 40) as zooming:
            for turn in range(20):
                page.mouse.wheel(0, -60 if turn < 14 else 60)
                page.wait_for_timeout(15)
        page.mouse.down()
        with frames(page, 40) as panning:
            for turn in range(20):
                page.mouse.move(x + 10 * turn, y + 3 * turn)
                page.wait_for_timeout(15)
        page.mouse.up()
        page.keyboard.press("0")
        score, error = page.locator("#score"), page.locator("#error")
        filters = [timed(lambda value=value: score.fill(value)) for value in ("0.3", "0.4", "0.5", "0.6", "0.7")]
        kind = timed(lambda: error.select_option(label="localisation"))
        timed(lambda: error.select_option(label="all"))
        overlap = timed(lambda: page.locator("#iou").select_option("0.3"), new_image=True)
        page.locator("#strip").hover()
        with frames(page, 60) as scrolling:
            for _ in range(30):
                page.mouse.wheel(400, 0)
                page.wait_for_timeout(15)
        following = []
        for _ in range(8):
            page.wait_for_timeout(400)  # a person looks at an image, while the next one loads
            following.append(timed(lambda: page.keyboard.press("ArrowRight"), new_image=True))
        last = timed(lambda: page.keyboard.press("End"), new_image=True)
        memory = sum(
            process.memory_info().rss - process.memory_info().shared
            for process in psutil.Process(os.getpid()).children(recursive=True)
            if "chrom" in process.name()
        )
        if said:
            raise UserError(f"{file}: the browser said: {said[0]}")

    def ms(values: list[float]) -> str:
        return f"{statistics.median(values):.0f} (95 %: {np.percentile(values, 95):.0f})"

    return {
        "opening until the first image is shown, s": f"{first:.1f}",
        "thumbnails loaded by then": thumbnails,
        "zooming, ms between frames": ms(zooming),
        "panning, ms between frames": ms(panning),
        "changing the minimum score, ms until all counts are updated": ms(filters),
        "images with one kind of error, ms until listed": f"{kind:.0f}",
        "scrolling the thumbnails, ms between frames": ms(scrolling),
        "changing the minimum IoU, ms until all counts are updated": f"{overlap:.0f}",
        "next image, ms until shown": ms(following),
        "last image, not loaded before, ms until shown": f"{last:.0f}",
        "memory of the browser, MB": f"{memory / 1e6:.0f}",
    }


def run(args: argparse.Namespace) -> None:
    """Write the page, use it, and write a table of the measurements."""
    if why := find_missing():
        raise UserError(why)
    data = read_data_yaml(args.data)
    with tempfile.TemporaryDirectory() as folder:
        page, holds = write_page(Path(folder), data, args.models, args.images)
        rows = holds | measure(page)
    table = "\n".join(markdown_table(["measurement", "value"], [[what, str(value)] for what, value in rows.items()]))
    LOGGER.info(table)
    images = ["--images", str(args.images)] if args.images else []
    command = module_command("benchmarks.page", ["--data", Path(args.data).name, *images])
    about = f"Written by `{command}`: {Path(args.data).stem}, synthetic detections, headless Chromium without a GPU,\n"
    about += f"{os.cpu_count()} cores, {platform.machine()}, commit {commit()}."
    write_file(args.out, f"# The page that compares models\n\n{about}\n\n{table}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = build_parser(__doc__)
    add = parser.add_argument
    add("--data", required=True, help="YAML file of the data set whose validation images are shown")
    add("--images", type=int, help="number of images, repeated if there are fewer (default: all)")
    add("--models", type=int, default=3, help="models side by side (default: 3)")
    add("--out", type=Path, default=RESULTS / "page.md", help="table to write")
    return execute("benchmarks.page", parser.parse_args, run, argv)


if __name__ == "__main__":
    sys.exit(main())
