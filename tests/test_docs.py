"""What the documents say is what the code does."""

import re
import sys
from pathlib import Path

import pytest
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.utils import SMALL_OBJECT_CFG_PATH, YAML

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import model_table  # noqa: E402


def test_the_table_of_models_is_the_one_that_the_command_writes() -> None:
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert model_table.BEGIN + model_table.table() + model_table.END in text


def test_every_new_argument_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in YAML.load(SMALL_OBJECT_CFG_PATH):
        assert f"| `{name}` |" in text
        assert name in DEFAULT_CFG_DICT


@pytest.mark.parametrize(
    "document", ["README.md", "docs/models.md", "docs/benchmarks.md", "docs/data.md", "docs/slicing.md"]
)
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"(?:model|data)=(?:ultralytics|datasets)/(\S+\.yaml)", text)
    for link in links:
        assert ((ROOT / document).parent / link).exists(), link
    for name in named:
        plain = re.sub(r"yolo11[nsmlx]", "yolo11", name)
        assert any((ROOT / top / plain).exists() for top in ("ultralytics", "datasets")), name


def test_make_help_lists_the_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M):
        assert re.search(rf"^{target}:.*## ", makefile, flags=re.M)
