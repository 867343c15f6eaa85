"""The page that compares models: its files, and its behaviour in a browser."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou
from ultralytics.engine.results import Results

from docs.tools import browser
from small_object.compare import page as page_module
from small_object.compare.kinds import ERRORS, Kind
from small_object.compare.page import ComparisonPage
from small_object.sizes import SIZE_GROUPS
from tests.helpers.common import write_tree
from tests.small_object.compare.test_runs import read_page

NAMES = {0: "airplane", 1: "person", 2: "truck"}
HEIGHT, WIDTH = 240, 400


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return objects (class, x1, y1, x2, y2) of all sizes, and detections (class, score, x1, y1, x2, y2) by two."""

    def boxes(count: int) -> np.ndarray:
        sides = 2 ** rng.uniform(2, 7.2, (count, 2))
        corners = rng.uniform(0, 1, (count, 2)) * np.maximum(1, (WIDTH, HEIGHT) - sides)
        return np.column_stack((corners, np.minimum(corners + sides, (WIDTH, HEIGHT)))).round(1)

    objects = np.column_stack((rng.integers(0, 3, 14), boxes(14)))
    found = []
    for blur in (0.08, 0.2):
        chosen = np.repeat(objects, rng.integers(0, 3, len(objects)), axis=0)
        sides = np.tile(chosen[:, 3:] - chosen[:, 1:3], 2)
        near = chosen[:, 1:] + rng.normal(0, blur, sides.shape) * sides
        near = np.column_stack((np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])))
        rows = np.vstack((near, boxes(5))).clip(0, (WIDTH, HEIGHT) * 2).round(1)
        classes = np.concatenate((chosen[:, 0], rng.integers(0, 3, 5)))
        scores = rng.permutation(np.linspace(0.05, 0.95, len(rows))).round(3)
        table = np.column_stack((classes, scores, rows))
        found.append(table[np.argsort(-table[:, 1])])
    return objects, found[0], found[1]


def label_text(objects: np.ndarray) -> str:
    low, high = objects[:, 1:3] / (WIDTH, HEIGHT), objects[:, 3:] / (WIDTH, HEIGHT)
    rows = np.column_stack((objects[:, 0], (low + high) / 2, high - low))
    return "\n".join("{:.0f} {:.9f} {:.9f} {:.9f} {:.9f}".format(*row) for row in rows)


def picture(seed: int) -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.dstack((x * 255 // WIDTH, y * 255 // HEIGHT, np.full_like(x, 40 * seed % 256))).astype(np.uint8)


def result(
    file: Path, rows: np.ndarray | None = None, names: dict[int, str] = NAMES, image: np.ndarray | None = None
) -> Results:
    """Return a result of detections (class, score, x1, y1, x2, y2); by default none in `picture(0)`."""
    rows = np.zeros((0, 6)) if rows is None else rows
    speed = {"preprocess": 2.0, "inference": 9.34, "postprocess": 1.0}
    boxes = torch.from_numpy(rows[:, [2, 3, 4, 5, 1, 0]])
    return Results(picture(0) if image is None else image, str(file), names, boxes=boxes, speed=speed)


def write_label(folder: Path, text: str) -> Path:
    """Write a label file; return the path of its image, which is not there."""
    write_tree(folder, {"labels/a.txt": text})
    (folder / "images").mkdir()
    return folder / "images/a.png"


def make_page(folder: Path, count: int, labels: bool = True) -> tuple[Path, list]:
    """Write a page of random scenes with two models; return it and its scenes."""
    rng = np.random.default_rng(5)
    scenes = [scene(rng) for _ in range(count)]
    data, out = folder / "data", folder / "out"
    page = ComparisonPage(out, "Scenes")
    for number, (objects, *tables) in enumerate(scenes):
        file = data / f"images/val/{number:03d} #50%.png"
        write_tree(file.parent, {file.name: picture(number)})
        if labels:
            write_tree(data, {f"labels/val/{file.stem}.txt": label_text(objects)})
        for model, rows in enumerate(tables):
            annotated = out / f"model {model}/{file.stem}.jpg"
            write_tree(annotated.parent, {annotated.name: np.full((HEIGHT, WIDTH, 3), 80 + 80 * model, np.uint8)})
            page.add(f"model {model}", result(file, rows, image=picture(number)), annotated)
    written = page.write()
    assert written == out / "index.html"
    return written, scenes


def error_counts(page: ComparisonPage) -> dict[str, dict[str, int]]:
    counts = {name: counts.sum(0) for name, counts in page.count_kinds().items()}
    return {name: {kind.name: int(row[kind]) for kind in Kind if row[kind]} for name, row in counts.items()}


def test_ignore_regions_and_images_without_labels_are_left_out_of_the_errors(tmp_path: Path) -> None:
    page = ComparisonPage(tmp_path, "t", names=NAMES)
    rows = np.array([[0, 0.9, 180, 108, 220, 132], [0, 0.8, 10, 10, 40, 40], [0, 0.7, 300, 10, 340, 40]])
    file = write_label(tmp_path, "0 0.5 0.5 0.1 0.1\n2 0.1 0.9 0.05 0.05")
    write_tree(tmp_path, {"ignore/a.txt": "0.1 0.1 0.2 0.2\n"})
    page.add("m", result(tmp_path / "unlabelled.png", rows), None)
    assert page.count_kinds() == {}
    page.add("m", result(file, rows), None)
    page.add("whole", result(file, rows[:1]), None)
    whole = {"FOUND": 1, "UNDETECTED": 1, "MISSED": 1}
    assert error_counts(page) == {"m": whole | {"BACKGROUND": 1, "IGNORED": 1}, "whole": whole}
    (tmp_path / "ignore/a.txt").write_text("broken")
    page = ComparisonPage(tmp_path, "t", names=NAMES)
    page.add("m", result(file, rows), None)
    assert error_counts(page) == {"m": whole | {"BACKGROUND": 2}}


@pytest.fixture(scope="module")
def scenes_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    return make_page(tmp_path_factory.mktemp("page"), 5)


def test_the_page_holds_boxes_classes_and_sizes(scenes_page: tuple[Path, list]) -> None:
    data, names = read_page(scenes_page[0]), list(NAMES.values())
    assert data["models"] == [{"name": f"model {i}", "milliseconds": 12.3} for i in (0, 1)]
    assert [name for name, *_ in data["sizes"]] == list(SIZE_GROUPS) and data["classes"] == names
    for image, scene in zip(data["images"], scenes_page[1], strict=True):
        assert image["size"] == [WIDTH, HEIGHT]
        for rows, table in zip([image["truth"], *image["detections"]], scene, strict=True):
            np.testing.assert_allclose([row[1:] for row in rows], table[:, 1:], atol=0.051)
            assert [row[0] for row in rows] == table[:, 0].tolist()


def test_thumbnails_are_small_and_those_of_an_earlier_page_go(tmp_path: Path) -> None:
    files = tmp_path / "out/index_files"
    files.mkdir(parents=True)
    for name in ("00007.jpg", "00000.png", "0123456789abcdef.js", "notes.txt"):
        (files / name).touch()
    make_page(tmp_path, 2)
    assert not (files / "0123456789abcdef.js").exists()
    assert sorted(path.name for path in files.iterdir() if path.suffix != ".js") == [
        "00000.jpg",
        "00001.jpg",
        "notes.txt",
    ]
    expected = cv2.resize(picture(1), (160, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(cv2.imread(str(files / "00001.jpg")).astype(int) - expected).mean() < 3


def test_a_format_that_browsers_do_not_know_is_copied(tmp_path: Path) -> None:
    page = ComparisonPage(tmp_path, "t")
    file = tmp_path / "a.tiff"
    cv2.imwrite(str(file), picture(1))
    page.add("m", result(file, image=picture(1)), file)
    image = read_page(page.write())["images"][0]
    assert image["source"] == "index_files/00000.png"
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / image["source"])), picture(1))


def test_truth_is_none_without_labels_and_empty_where_a_label_file_lacks(tmp_path: Path, caplog: Any) -> None:
    box = "0.5 0.5 0.1 0.1"
    texts = {"broken": "0 a b c d", "nan": f"nan {box}", "unnamed": f"9 {box}\n1 {box}"}
    write_tree(tmp_path, {f"labels/{name}.txt": text for name, text in texts.items()})
    page = ComparisonPage(tmp_path, "t")
    files = [*(tmp_path / f"images/{name}.png" for name in ("broken", "unnamed", "without", "nan")), tmp_path / "a.png"]
    for file in files:
        page.add("m", result(file), file)
    truth = [image["truth"] for image in read_page(page.write())["images"]]
    assert truth[0] is None and truth[2] == [] and truth[3] is None and truth[4] is None
    assert len(truth[1]) == 1 and truth[1][0][1:] == [180, 108, 220, 132]
    assert "broken.txt:1" in caplog.text and "class 9 has no name" in caplog.text


def test_classes_are_brought_together_by_name(tmp_path: Path) -> None:
    page = ComparisonPage(tmp_path, "t", names={0: "truck"})
    file = write_label(tmp_path, "0 0.5 0.5 0.1 0.1")
    rows = np.array([[1, 0.9, 0, 0, 9, 9]])
    page.add("two classes", result(file, rows, {0: "airplane", 1: "truck"}), file)
    page.add("other order", result(file, rows * (0, 1, 1, 1, 1, 1), {0: "truck", 1: "airplane"}), file)
    data = read_page(page.write())
    assert [data["classes"][c] for c in data["used"]] == ["truck"]
    assert data["images"][0]["detections"][0] == data["images"][0]["detections"][1] and not page.notes


def reference(
    scenes: list, model: int, score: float, iou: float, classes: set[int], sizes: set[str], same_class: bool = True
) -> list[int]:
    """Count found, missed and false by the rule that the page states, with torchvision's IoU."""
    limits = list(SIZE_GROUPS.items())

    def wanted(c: float, box: np.ndarray) -> bool:
        area = (box[2] - box[0]) * (box[3] - box[1])
        group = next(name for name, (low, high) in limits if low <= area < high)
        return int(c) in classes and group in sizes

    found = missed = false = 0
    for objects, *tables in scenes:
        rows = tables[model][tables[model][:, 1] >= score]
        overlap = box_iou(torch.from_numpy(rows[:, 2:]), torch.from_numpy(objects[:, 1:])).numpy()
        overlap[same_class & (rows[:, :1] != objects[:, 0])] = -1
        free = np.ones(len(objects), bool)
        for row, overlaps in zip(rows, overlap, strict=True):
            overlaps = np.where(free, overlaps, -1)
            if overlaps.max(initial=-1) >= iou:
                free[overlaps.argmax()] = False
                found += wanted(*objects[overlaps.argmax(), :1], objects[overlaps.argmax(), 1:])
            else:
                false += wanted(row[0], row[2:])
        missed += sum(wanted(c, np.array(box)) for c, *box in objects[free].tolist())
    return [found, missed, false]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if reason := browser.find_missing():
        pytest.skip(reason)
    with browser.browser() as started:
        yield started


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[[Path], Any]]:
    """Return a function that opens a page; its console must stay empty."""
    opened = []

    def call(file: Path) -> Any:
        opened.append(browser.open_page(chromium, file))
        settle(opened[-1][0])
        return opened[-1][0]

    yield call
    for page, said in opened:
        page.close()
        assert said == []


@pytest.fixture
def shown(open_page: Callable[[Path], Any], scenes_page: tuple[Path, list]) -> Any:
    return open_page(scenes_page[0])


def settle(page: Any) -> None:
    """Wait until the image is there and drawn."""
    browser.wait_until(page, browser.SHOWN)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def press(page: Any, keys: Iterable[str]) -> None:
    for key in keys:
        page.keyboard.press(key)
    settle(page)


def totals(page: Any) -> list[list[int]]:
    settle(page)
    cells = page.locator("#totals td:not([colspan])").all_inner_texts()
    return [[int(text) for text in cells[start : start + 3]] for start in range(0, len(cells), 5)]


def pane(page: Any, number: int) -> np.ndarray:
    """Return what a pane shows, (H, W, 3)."""
    shot = page.locator(".view").nth(number).screenshot()
    return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR).astype(int)


def centre(page: Any) -> tuple[float, float]:
    box = page.locator(".view").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_counts_follow_score_class_size_and_overlap(shown: Any, scenes_page: tuple[Path, list]) -> None:
    scenes, everything = scenes_page[1], (0.0, 0.5, {0, 1, 2}, set(SIZE_GROUPS))

    def agrees(score: float, iou: float, classes: set[int], sizes: set[str], same_class: bool = True) -> None:
        expected = [reference(scenes, model, score, iou, classes, sizes, same_class) for model in (0, 1)]
        assert totals(shown) == expected

    agrees(*everything)
    shown.locator("#score").fill("0.4")
    agrees(0.4, *everything[1:])
    shown.get_by_label("person", exact=True).uncheck()
    agrees(0.4, 0.5, {0, 2}, everything[3])
    shown.locator("#sizes input").nth(3).uncheck()
    shown.locator("#sizes input").nth(0).uncheck()
    agrees(0.4, 0.5, {0, 2}, {"tiny", "small", "large"})
    shown.locator("#iou").select_option("0.3")
    agrees(0.4, 0.3, {0, 2}, {"tiny", "small", "large"})
    shown.locator("#iou").select_option("0.75")
    shown.locator("#score").fill("0.05")
    agrees(0.05, 0.75, {0, 2}, {"tiny", "small", "large"})
    shown.get_by_label("and its class").uncheck()
    agrees(0.05, 0.75, {0, 2}, {"tiny", "small", "large"}, same_class=False)
    shown.get_by_label("and its class").check()
    shown.locator("#classes label", has_text="truck").dblclick()
    agrees(0.05, 0.75, {2}, {"tiny", "small", "large"})


def errors_shown(page: Any) -> list[list[int]]:
    """Return the rows of the table of errors without the names of sizes."""
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#errors tr").all()[1:]]
    return [[int(text) for text in row] for row in rows if len(row) > 1]


def test_the_table_of_errors_follows_the_filters_and_images_are_chosen_by_kind(
    open_page: Callable[[Path], Any], tmp_path: Path
) -> None:
    page = ComparisonPage(tmp_path / "out", "t", names=NAMES)
    boxes = {"own": (180, 108, 220, 132), "moved": (200, 108, 240, 132), "empty": (0, 0, 12, 12)}
    images = {"a": [(0, "own"), (0, "own")], "b": [(1, "own")], "c": [(0, "moved"), (2, "empty")], "d": [(1, "moved")]}
    file = write_label(tmp_path, "")
    for number, (name, found) in enumerate(images.items()):
        (tmp_path / f"labels/{name}.txt").write_text("0 0.5 0.5 0.1 0.1")
        cv2.imwrite(str(file.with_stem(name)), picture(0))
        rows = np.array([[c, 0.9 - 0.2 * i, *boxes[where]] for i, (c, where) in enumerate(found)])
        page.add("m", result(file.with_stem(name), rows), None)
        if number < 3:
            page.add("stopped", result(file.with_stem(name)), None)
    shown = open_page(page.write())
    assert [kind.name for kind in ERRORS] == ["CLASS", "LOCALISATION", "BOTH", "DUPLICATE", "BACKGROUND", "MISSED"]
    tiny, small = [0, 0, 0, 0, 1, 0], [1, 1, 1, 1, 0, 1]  # 12x12 px and 40x24 px
    assert errors_shown(shown)[:3] == [[1, 1, 1, 1, 1, 1], tiny, small]
    assert errors_shown(shown)[3:] == [[0, 0, 0, 0, 0, 3]] * 2  # of the images that the model ran
    chosen = {"class": "b", "localisation": "c", "both": "d", "duplicate": "a", "missed outright": "abcd"}
    for kind, names in chosen.items():
        shown.locator("#error").select_option(label=kind)
        settle(shown)
        assert shown.locator("#strip span").all_inner_texts() == [f"{name}.png" for name in names]
        assert shown.locator("#name").inner_text()[0] in names
        assert "missed" in kind or f"of these 1 {kind}" in shown.locator("figcaption").first.inner_text()
    shown.locator("#error").select_option(label="all")
    press(shown, ["End"])
    assert "not run" in shown.locator("figcaption").nth(1).inner_text()
    shown.locator("#score").fill("0.8")
    settle(shown)
    assert errors_shown(shown)[:2] == [[1, 1, 1, 0, 0, 1]] * 2


def test_a_page_of_many_images_loads_the_boxes_of_those_that_are_shown(
    open_page: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MAX_INLINE", 4)
    monkeypatch.setattr(page_module, "SHARD", 2)
    written, scenes = make_page(tmp_path, 5)
    data = read_page(written)
    assert len(data["shards"]) == 3 and [len(image["truth"]) for image in data["images"]] == [14] * 5
    shown = open_page(written)

    def loaded() -> int:
        return sum(shown.locator(f"script[src='{shard}']").count() for shard in data["shards"])

    assert loaded() == 1
    assert totals(shown) == [reference(scenes, model, 0, 0.5, {0, 1, 2}, set(SIZE_GROUPS)) for model in (0, 1)]
    press(shown, ["End", "Home"])
    assert loaded() == 2
    shown.locator("#iou").select_option("0.3")
    assert totals(shown) == [reference(scenes, model, 0, 0.3, {0, 1, 2}, set(SIZE_GROUPS)) for model in (0, 1)]


def test_boxes_are_drawn_where_they_are(shown: Any, scenes_page: tuple[Path, list]) -> None:
    objects = scenes_page[1][0][0]
    whole = pane(shown, 0)
    press(shown, "fma")
    without = pane(shown, 0)
    press(shown, "g")
    changed = np.abs(pane(shown, 0) - without).max(2) > 40
    height, width = changed.shape
    scale = min(width / WIDTH, height / HEIGHT)
    left, top = (width - WIDTH * scale) / 2, (height - HEIGHT * scale) / 2
    expected = np.zeros(changed.shape, np.uint8)
    for x1, y1, x2, y2 in (objects[:, 1:] * scale + (left, top, left, top)).tolist():
        corners = (round(x1 - 1), round(y1 - 1)), (round(x2 + 1), round(y2 + 1))
        cv2.rectangle(expected, *corners, 255, 1)
    near = cv2.dilate(expected, np.ones((5, 5), np.uint8)) > 0
    assert changed.any() and not (changed & ~near).any()
    assert (cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8))[expected > 0]).mean() > 0.95
    assert np.abs(whole - without).max() > 40


def test_all_panes_zoom_and_pan_together(shown: Any) -> None:
    def both() -> np.ndarray:
        shown.mouse.move(0, 0)
        settle(shown)
        np.testing.assert_array_equal(pane(shown, 0), pane(shown, 1))
        return pane(shown, 0)

    press(shown, "fma")
    whole = both()
    (x, y), middle = centre(shown), whole.shape[1] // 2
    shown.mouse.move(x + 30, y + 20)
    for _ in range(3):
        shown.mouse.wheel(0, -200)
    zoomed, row = both(), int(y - shown.locator(".view").first.bounding_box()["y"]) + 20
    # Blue rises from 0 to 255 over the image's width: eight times as large it rises an eighth as fast.
    slopes = [np.gradient(shot[row, middle - 80 : middle + 80, 0]).mean() for shot in (whole, zoomed)]
    assert slopes[0] / slopes[1] == pytest.approx(8, rel=0.1)
    assert np.abs(whole - zoomed)[row, middle + 30].max() <= 4  # the point under the pointer stays where it is
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x - 100, y, steps=4)
    shown.mouse.up()
    assert np.abs(both()[:, 50:-150] - zoomed[:, 150:-50]).mean() < 3
    press(shown, "0")
    np.testing.assert_array_equal(both(), whole)


def test_keys_move_on_and_hide_models(shown: Any, scenes_page: tuple[Path, list]) -> None:
    position = shown.locator("#position")
    keys = {"ArrowRight": 2, "End": 5, "ArrowLeft": 4, "Home": 1, "n": 2, "p": 1}
    for key, expected in [*keys.items(), ("End", 5), ("ArrowRight", 5), ("Home", 1)]:
        shown.keyboard.press(key)
        assert position.inner_text() == f"{expected} of 5"
    assert shown.locator("#name").inner_text() == "000 #50%.png"
    press(shown, "2")
    assert [figure.is_visible() for figure in shown.locator("figure").all()] == [True, False]
    shown.keyboard.press("?")
    assert shown.locator("#keys").is_visible()
    shown.keyboard.press("Escape")
    shown.keyboard.press("2")
    shown.locator("#order").select_option("missed")
    settle(shown)
    missed = [
        sum(reference([scene], model, 0, 0.5, {0, 1, 2}, set(SIZE_GROUPS))[1] for model in (0, 1))
        for scene in scenes_page[1]
    ]
    names = shown.locator("#strip span").all_inner_texts()
    assert [int(name[:3]) for name in names] == sorted(range(5), key=lambda number: (-missed[number], number))


def test_a_key_goes_near_to_each_error(shown: Any, scenes_page: tuple[Path, list]) -> None:
    shown.locator("#classes label", has_text="truck").dblclick()  # fewer
    press(shown, "f2")
    _, missed, false = reference(scenes_page[1][:1], 0, 0, 0.5, {2}, set(SIZE_GROUPS))
    assert missed + false > 2
    seen = set()
    for _ in range(missed + false):
        press(shown, "e")
        assert shown.locator("#position").inner_text() == "1 of 5"
        near = pane(shown, 0)
        seen.add(near.tobytes())
        middle = near[near.shape[0] // 4 : -near.shape[0] // 4, near.shape[1] // 4 : -near.shape[1] // 4]
        orange, yellow = (np.abs(middle - colour).max(2).min() < 60 for colour in ([74, 107, 255], [77, 225, 255]))
        assert orange or yellow  # a mark in the middle half of the view
    assert len(seen) == missed + false
    shown.keyboard.press("e")
    assert shown.locator("#position").inner_text() == "2 of 5"


def test_a_box_under_the_pointer_is_named(shown: Any, scenes_page: tuple[Path, list]) -> None:
    c, score, x1, y1, x2, y2 = scenes_page[1][0][1][0].tolist()
    box = shown.locator(".view").first.bounding_box()
    scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
    x = box["x"] + box["width"] / 2 + ((x1 + x2) / 2 - WIDTH / 2) * scale
    shown.mouse.move(x, box["y"] + box["height"] / 2 + ((y1 + y2) / 2 - HEIGHT / 2) * scale)
    assert re.search(
        rf"{NAMES[int(c)]}  {score:.2f}  [\d.]+.[\d.]+ px  (found|false alarm)", shown.locator("#tip").inner_text()
    )


def test_text_of_names_cannot_run_as_script(chromium: Any, tmp_path: Path) -> None:
    evil = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>\u2028`${window.hacked=1}`"
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / '<img src=x onerror="window.hacked=1">&quot;.png'
    cv2.imwrite(str(file), picture(2))
    page = ComparisonPage(tmp_path / "out", evil)
    page.add(evil, result(file, np.array([[0, 0.9, 10, 10, 300, 200]]), {0: evil}), file)
    shown, said = browser.open_page(chromium, page.write())
    settle(shown)
    shown.keyboard.press("l")
    shown.mouse.move(*centre(shown))
    settle(shown)
    assert shown.evaluate("window.hacked") is None
    assert evil in shown.locator("#tip").text_content()
    assert shown.locator("figcaption b").text_content() == evil
    assert shown.locator("#name").text_content() == file.name
    assert shown.locator("h1").text_content() == evil
    assert shown.locator("img").count() == 1  # the thumbnail
    # Were there a way in, the page's policy would still stop it.
    script = "Object.assign(document.createElement('script'), { textContent: 'window.hacked = 1' })"
    shown.evaluate(f"() => document.body.append({script})")
    assert shown.evaluate("window.hacked") is None
    assert len(said) == 1 and "Content Security Policy" in said[0]
    shown.close()


def test_without_the_images_the_annotated_ones_are_shown(chromium: Any, tmp_path: Path) -> None:
    written, _ = make_page(tmp_path, 2)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    shown, _ = browser.open_page(chromium, written)
    browser.wait_until(shown, "document.getElementById('note').textContent")
    shown.wait_for_load_state("networkidle")
    settle(shown)
    assert "not found" in shown.locator("#note").inner_text()
    middle = [shot[shot.shape[0] // 2, shot.shape[1] // 2] for shot in (pane(shown, 0), pane(shown, 1))]
    np.testing.assert_allclose(middle, [[80] * 3, [160] * 3], atol=2)
    shown.close()


def test_without_labels_detections_are_counted(open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    written, scenes = make_page(tmp_path, 2, labels=False)
    shown = open_page(written)
    expected = [sum(len(scene[1 + model]) for scene in scenes) for model in (0, 1)]
    assert shown.locator("#totals td:not([colspan])").all_inner_texts() == [str(count) for count in expected]
    assert shown.locator("#marks label").count() == 2
    press(shown, "g")  # without effect


def test_a_model_of_other_classes_is_compared_by_boxes(open_page: Callable[[Path], Any], tmp_path: Path) -> None:
    scenes = [scene(np.random.default_rng(9))]
    objects, rows, _ = scenes[0]
    file = write_label(tmp_path, label_text(objects))
    cv2.imwrite(str(file), picture(0))
    page = ComparisonPage(tmp_path, "t", names=NAMES)
    page.add("one class", result(file, rows * (0, 1, 1, 1, 1, 1), {0: "item"}), file)
    assert [*page.notes] == ["one class: has no class of the labels, so all models are matched by boxes alone"]
    shown = open_page(page.write())
    assert totals(shown) == [reference(scenes, 0, 0, 0.5, {0, 1, 2}, set(SIZE_GROUPS), same_class=False)]
    shown.get_by_label("and its class").check()
    assert totals(shown) == [[0, len(objects), len(rows)]]
