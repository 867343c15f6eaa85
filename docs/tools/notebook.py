"""Runs docs/notebook.ipynb and keeps what its cells show: python docs/tools/notebook.py.

After `make demo` the notebook starts from the demo's weights and so has something to show.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from small_object.files import replacing

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs/notebook.ipynb"


def execute(file: Path, folder: Path, timeout: int = 600) -> NotebookNode:
    """Run a notebook with this Python and return it with its outputs, free of what differs from run to run.

    Args:
        file: The notebook.
        folder: Working folder of its cells.
        timeout: Most seconds of a cell.

    Raises:
        CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(file, as_version=4)
    specs = KernelSpecManager(kernel_dirs=[])  # no kernel of the machine's, which may be another Python
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    client = NotebookClient(notebook, km=manager, timeout=timeout, resources={"metadata": {"path": str(folder)}})
    client.owns_km = True  # so it ends the kernel, too
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
    return notebook


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs of a cell without warnings, progress bars and the names of objects, texts in one piece."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            lines = output.text.replace("\r", "\n").splitlines()
            text = "".join(
                f"{line}\n" for line in lines if line.strip() and "\x1b" not in line
            )  # which moves the cursor
            if output.name == "stderr" or not text:
                continue
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += text
                continue
            output.text = text
        elif "data" in output:
            output.data.pop("text/plain", None)  # of a picture: <IPython.core.display.Image object>
        kept.append(output)
    return kept


def main() -> int:
    """Run the notebook and write it back."""
    try:
        notebook = execute(NOTEBOOK, NOTEBOOK.parent)
    except CellExecutionError as error:
        print(f"{NOTEBOOK}: {error.ename}: {error.evalue}; the notebook stays as it was", file=sys.stderr)
        return 1
    with replacing(NOTEBOOK) as new:
        nbformat.write(notebook, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
