"""Adds files outside docs/ to the site: README.md as its start page, and every file that a page links to.

In the repository, a link is relative to its file. In the site, the files of docs/ are at the top and all others at
their path in the repository, so links are rewritten.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def site_path(file: Path) -> str:
    """Return the path of a repository file in the site, before pages become HTML."""
    name = file.relative_to(ROOT).as_posix()
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def repository_path(uri: str) -> Path:
    """Return the file of the repository for a page of the site."""
    candidates = [ROOT / "README.md"] if uri == "index.md" else [ROOT / "docs" / uri, ROOT / uri]
    return next(path for path in candidates if path.is_file())


def linked_files(document: Path) -> list[Path]:
    """Return the files of the repository that a document links to or shows."""
    targets = [match[2] for match in LINK.finditer(document.read_text(encoding="utf-8")) if "://" not in match[2]]
    files = [(document.parent / target).resolve() for target in targets]
    return [file for file in files if file.is_file() and ROOT in file.parents]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md and every file outside docs/ that a page links to."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    documents = [repository_path(file.src_uri) for file in files.documentation_pages()]
    for document in documents:  # the list grows while it is read
        for file in linked_files(document):
            uri = site_path(file)
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(file)))
                if file.suffix == ".md":
                    documents.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page to the paths of files in the site."""
    document, folder = repository_path(page.file.src_uri), posixpath.dirname(page.file.src_uri) or "."

    def rewrite(match: re.Match[str]) -> str:
        file = (document.parent / match[2]).resolve()
        if "://" in match[2] or not file.is_file() or ROOT not in file.parents:
            return match[0]
        return f"{match[1]}{posixpath.relpath(site_path(file), folder)}{match[3]}"

    return LINK.sub(rewrite, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a notebook to pages; mkdocs-jupyter leaves them unchanged."""
    if page.file.src_uri.endswith(".ipynb"):
        html = re.sub(r'href="(\w+)\.md(#[^"]*)?"', r'href="\1.html\2"', html)
    return html
