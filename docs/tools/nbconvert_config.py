"""Configures `make notebook`, which runs docs/notebook.ipynb and drops outputs that differ from run to run."""

from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode


class TidyOutputs(Preprocessor):
    """Drops warnings, progress bars and the names of picture objects from the outputs."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        """Tidy the outputs of a cell."""
        kept: list[NotebookNode] = []
        for output in cell.get("outputs", []):
            if "text" in output:  # a progress bar moves the cursor
                lines = output.text.replace("\r", "\n").splitlines(keepends=True)
                output.text = "".join(line for line in lines if line.strip() and "\x1b" not in line)
            output.get("data", {}).pop("text/plain", None)
            if output.get("name") == "stderr" or output.get("text") == "":
                continue
            if kept and "text" in output and "text" in kept[-1]:
                kept[-1].text += output.text
            else:
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
        return cell, resources


c = get_config()  # noqa: F821, defined by nbconvert
c.ExecutePreprocessor.timeout = 600
c.ExecutePreprocessor.record_timing = False
c.ClearMetadataPreprocessor.enabled = True
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec"}
c.NotebookExporter.preprocessors = [TidyOutputs]
