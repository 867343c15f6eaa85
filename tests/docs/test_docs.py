"""What the documents say is what the code does."""

import base64
import html
import importlib.metadata
import re
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from ultralytics.cfg import DEFAULT_CFG_DICT

from benchmarks.common import ROOT
from docs.tools import before_after, diagrams, pictures, tables
from small_object.arguments import DEFAULTS
from small_object.sizes import SIZE_GROUPS
from small_object.slicing.tiling import tile_grid
from tests.helpers.common import Run

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def links(document: Path) -> list[str]:
    """Return the files that a document links to or shows."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("document", tables.TABLES, ids=lambda document: document.name)
def test_a_table_is_the_one_that_the_command_writes(document: Path) -> None:
    assert tables.BEGIN + tables.TABLES[document]() + tables.END in document.read_text(encoding="utf-8")


def test_every_new_argument_is_in_the_documents() -> None:
    text = (ROOT / "docs/arguments.md").read_text(encoding="utf-8")
    for name in DEFAULTS:
        assert f"| `{name}` |" in text
        assert name in DEFAULT_CFG_DICT


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?:model|data)=(?:ultralytics|datasets)/(\S+\.yaml)", text)
    for link in links(document):
        assert (document.parent / link).is_file(), link
    for name in named:
        plain = re.sub(r"yolo11[nsmlx]", "yolo11", name)
        assert any((ROOT / top / plain).exists() for top in ("ultralytics", "datasets")), name


def test_every_picture_of_a_document_is_one_that_make_pictures_writes() -> None:
    shown = {(document.parent / link).resolve() for document in DOCUMENTS for link in links(document)}
    shown = {path for path in shown if path.suffix in {".svg", ".jpg", ".png"} and "results" not in path.parts}
    written = {diagrams.FOLDER / name for name in diagrams.DRAWINGS} | {before_after.PICTURE}
    written |= {ROOT / "docs" / name for name in pictures.PICTURES}
    assert shown == written
    assert set((ROOT / "docs").rglob("*.svg")) | set((ROOT / "docs").rglob("*.jpg")) == written


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_a_drawing_is_the_one_that_the_command_draws(name: str) -> None:
    kept, drawn = (diagrams.FOLDER / name).read_text(encoding="utf-8"), diagrams.svg(diagrams.DRAWINGS[name])
    if f"Matplotlib v{importlib.metadata.version('matplotlib')}," in kept:
        assert drawn == kept
    else:  # another version may place a line elsewhere
        assert texts(drawn) == texts(kept)


def texts(svg: str) -> list[str]:
    return re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", svg)


def test_the_python_api_names_modules_that_exist() -> None:
    modules = re.findall(r"^::: (\S+)", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.M)
    paths = [Path("ultralytics" if name.startswith("nn.") else "src", *name.split(".")) for name in modules]
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path.with_suffix(".py")).is_file() or (ROOT / path / "__init__.py").is_file(), path
    documented = {path.name for path in paths if path.parent.name == "modules"}
    assert documented == {path.stem for path in (ROOT / "ultralytics/nn/modules").glob("*.py")} - {"__init__"}


def test_the_site_builds_without_a_warning_and_holds_all_that_it_links_to(tmp_path: Path, run: Run) -> None:
    for name in ("material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[docs]'")
    done = run("-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path, cwd=ROOT, NO_MKDOCS_2_WARNING="1")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html") if page.stem != "404"}
    nav = re.findall(r"^ +- [^#\n]*: (\w+\.md)", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M)
    assert {document.name for document in DOCUMENTS[1:]} <= set(nav)
    assert {page.name for page in tmp_path.glob("*.html")} >= {f"{document.stem}.html" for document in DOCUMENTS[1:]}
    assert (tmp_path / "index.html").is_file() and (tmp_path / "benchmarks/results/quick/report.html").is_file()
    ids = {page: set(re.findall(r'\bid="?([^" >]+)', text)) for page, text in pages.items()}
    for page, text in pages.items():
        assert not re.search(r"""<(?:script|link|img)\b[^>]*\s(?:src|href)="?(?:https?:)?//""", text), page.name
        for url in re.findall(r'<(?:a|script|link|img)\b[^>]*\s(?:src|href)="?([^" >]+)', text):
            if re.match(r"\w+:", url):
                continue
            path, _, place = unquote(html.unescape(url)).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file() or (target / "index.html").is_file(), f"{page.name}: {url}"
            assert not place or target not in pages or place in ids[target], f"{page.name}: {url}"


def test_the_notebook_trains_slices_and_measures(tmp_path: Path, run: Run) -> None:
    nbformat = pytest.importorskip("nbformat")
    options = ("--config", "docs/tools/nbconvert_config.py", "--to", "notebook", "--execute")
    options += ("--output-dir", tmp_path, "docs/notebook.ipynb")
    done = run("-m", "nbconvert", *options, cwd=ROOT, YOLO_VERBOSE="false")
    assert done.returncode == 0, done.stderr
    kept = nbformat.read(ROOT / "docs/notebook.ipynb", as_version=4)
    made = nbformat.read(tmp_path / "notebook.ipynb", as_version=4)
    shown = [output for cell in made.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in shown)

    objects = int(re.search(r"^(\d+) objects$", said, flags=re.M)[1])
    counts = {name: int(re.search(rf"^ +all +{name} +\S+ +(\d+) ", said, flags=re.M)[1]) for name in SIZE_GROUPS}
    assert objects == sum(counts.values()) > 50
    first, *_, last = map(float, re.search(r"class loss by epoch: (.+)", said)[1].split(","))
    assert last < first
    whole, tiles, sliced = map(int, re.search(r"whole image: (\d+) boxes\s+(\d+) tiles: (\d+) boxes", said).groups())
    assert tiles == len(tile_grid(1080, 3840, 640, 0.2))
    assert 0 <= whole <= 1000 and 0 <= sliced <= 1000

    encoded = [output["data"]["image/png"] for output in shown if "image/png" in output.get("data", {})]
    images = [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR) for data in encoded]
    assert min(image.std() for image in images) > 10
    assert [cell.source for cell in kept.cells] == [cell.source for cell in made.cells]
    outputs, made_outputs = ([cell.get("outputs", []) for cell in each.cells] for each in (kept, made))
    assert [*map(bool, outputs)] == [*map(bool, made_outputs)]  # what is kept was made by running it
    texts = [output.get("text", "") for each in outputs for output in each]
    assert not re.search(r"(?:^|[\s'\"(=])(?:/\w|[A-Z]:\\)", "\n".join(texts))  # a path of the machine that ran it
