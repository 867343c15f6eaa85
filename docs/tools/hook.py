"""Brings into the site what lies beside docs/: README.md as its start, what pages link to, and the notebook.

In the files a link is relative to the file, so that it works where the repository is read. In the site the files of
docs/ lie at the top, and the others where they lie in the repository; links are written anew for that.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
OUTPUTS = "image/png", "image/jpeg"


def in_site(file: Path) -> str:
    """Return where a file of the repository lies in the site, before pages become HTML."""
    name = file.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    return name.removeprefix("docs/").removesuffix(".ipynb") + (".md" if name.endswith(".ipynb") else "")


def in_repository(uri: str) -> Path:
    """Return the file of the repository that became a page of the site."""
    notebook = ROOT / "docs" / Path(uri).with_suffix(".ipynb")
    places = [ROOT / "README.md"] if uri == "index.md" else [notebook, ROOT / "docs" / uri, ROOT / uri]
    return next(place for place in places if place.is_file())


def linked(text: str, file: Path) -> list[Path]:
    """Return the files that a document links to or shows."""
    targets = [match[2] for match in LINK.finditer(text) if "://" not in match[2]]
    return [path for target in targets if (path := (file.parent / target).resolve()).is_file()]


def notebook_text(file: Path) -> str:
    """Return a notebook as Markdown, with what its cells gave: text and pictures."""
    lines: list[str] = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            picture = next((kind for kind in OUTPUTS if kind in data), None)
            text = "".join(output.get("text", data.get("text/plain", "")))
            if picture:
                content = "".join(data[picture]).replace("\n", "")
                base64.b64decode(content, validate=True)
                lines += [f'<img src="data:{picture};base64,{content}" alt="output of the cell above">', ""]
            elif text.strip():
                lines += ["```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, the notebooks as pages, and every file outside docs/ that a page links to."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        files.append(File.generated(config, in_site(notebook), content=notebook_text(notebook)))
    to_read = [in_repository(file.src_uri) for file in files.documentation_pages()]
    for document in to_read:  # which grows on the way
        for file in linked(document.read_text(encoding="utf-8"), document):
            uri = in_site(file)
            if ROOT in file.parents and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(file)))
                if file.suffix == ".md":
                    to_read.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the links of a page for the places that files have in the site."""
    document, here = in_repository(page.file.src_uri), posixpath.dirname(page.file.src_uri) or "."

    def rewritten(match: re.Match[str]) -> str:
        file = (document.parent / match[2]).resolve()
        if "://" in match[2] or not file.is_file() or ROOT not in file.parents:
            return match[0]
        return f"{match[1]}{posixpath.relpath(in_site(file), here)}{match[3]}"

    return LINK.sub(rewritten, markdown)
