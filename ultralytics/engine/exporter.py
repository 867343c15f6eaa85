"""Makes exported models keep the metadata that `slice=auto` needs."""

from __future__ import annotations

from typing import Any

from ultralytics.engine.exporter import Exporter as StockExporter

from small_object.slicing.slicer import TRAINING_ATTRIBUTES


class Exporter(StockExporter):
    """Upstream's exporter, whose metadata also has the size and scale of the training objects if they are known."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata written into exported files alongside the network."""
        return self._metadata

    @metadata.setter
    def metadata(self, value: dict[str, Any]) -> None:
        known = vars(self.model)
        self._metadata = value | {name: float(known[name]) for name in TRAINING_ATTRIBUTES if known.get(name)}
