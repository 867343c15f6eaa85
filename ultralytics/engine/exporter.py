"""Makes exported models keep the metadata that `slice=auto` needs, and ONNX files fast in ONNX Runtime."""

from typing import Any

from ultralytics.engine.exporter import Exporter as StockExporter
from ultralytics.nn.modules.block import DFL
from ultralytics.nn.modules.light_head import LightDetect, OnnxDFL

from small_object.slicing.slicer import TRAINING_ATTRIBUTES


class Exporter(StockExporter):
    """Upstream's exporter.

    Its metadata also has the size and scale of the training objects if they are known. The light heads in an ONNX file
    compute the same in a form that ONNX Runtime is faster at.
    """

    def export_onnx(self, *args: Any, **kwargs: Any) -> str:
        """Write the ONNX file, also for formats that are made from it; see upstream."""
        for head in self.model.modules():
            if self.args.format == "onnx" and isinstance(head, LightDetect) and isinstance(head.dfl, DFL):
                head.dfl.__class__ = OnnxDFL
        return super().export_onnx(*args, **kwargs)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata written into exported files alongside the network."""
        return self._metadata

    @metadata.setter
    def metadata(self, value: dict[str, Any]) -> None:
        known = vars(self.model)
        self._metadata = value | {name: float(known[name]) for name in TRAINING_ATTRIBUTES if known.get(name)}
