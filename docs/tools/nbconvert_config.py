"""How `make notebook` runs docs/notebook.ipynb: the outputs are kept without what differs from run to run."""

from __future__ import annotations

from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode


class TidyOutputs(Preprocessor):
    """Drops warnings, progress bars and the names of picture objects from the outputs."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Tidy the outputs of a cell."""
        outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        for output in outputs:
            if "text" in output:  # a progress bar moves the cursor
                lines = output.text.replace("\r", "\n").splitlines(keepends=True)
                output.text = "".join(line for line in lines if line.strip() and "\x1b" not in line)
            elif "data" in output:
                output.data.pop("text/plain", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in outputs if output.get("text") != ""]
        return cell, resources


c = get_config()  # noqa: F821, defined by nbconvert
c.ExecutePreprocessor.timeout = 600
c.ExecutePreprocessor.record_timing = False
c.CoalesceStreamsPreprocessor.enabled = True
c.ClearMetadataPreprocessor.enabled = True
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec"}
c.NotebookExporter.preprocessors = [TidyOutputs]
