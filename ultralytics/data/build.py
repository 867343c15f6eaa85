"""A loader that can be brought back to where another one was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ultralytics.data.build import InfiniteDataLoader as StockInfiniteDataLoader
from ultralytics_overlay import require

require(
    "ultralytics.data.build.InfiniteDataLoader.__iter__",
    "iterator" in StockInfiniteDataLoader.__iter__.__code__.co_names,
    "no longer uses `iterator`",
)


class InfiniteDataLoader(StockInfiniteDataLoader):
    """Upstream's loader, which knows where in its endless order of samples it is."""

    _born: Any = None  # state of the generator before the iterator was made, which shuffles with it
    _drawn = 0  # batches that the iterator has given
    _keep = False

    def _get_iterator(self) -> Any:
        if self.generator is not None:
            self._born = self.generator.get_state()
        self._drawn = 0
        return super()._get_iterator()

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of an epoch."""
        for batch in super().__iter__():
            self._drawn = self._drawn + 1
            yield batch

    def reset(self) -> None:
        """Begin a new order, but not where one has just been brought back that began when upstream last did this."""
        if self._keep:
            self._keep = False
        else:
            super().reset()

    def state(self) -> dict[str, Any]:
        """Return where the loader is, for `bring_back`; only without loader processes, which read ahead."""
        return {"born": self._born, "drawn": self._drawn, "buffer": list(getattr(self.dataset, "buffer", ()))}

    def bring_back(self, state: dict[str, Any], keep: bool) -> None:
        """Go to where a loader of the same data was.

        Args:
            state: What its `state` said.
            keep: Whether the next `reset` is to be left out.
        """
        self.generator.set_state(state["born"])
        self.iterator = self._get_iterator()
        for _ in range(state["drawn"]):  # indices only, no images
            next(self.iterator._sampler_iter)
        self._drawn = state["drawn"]
        self._keep = keep
        if state["buffer"] != list(getattr(self.dataset, "buffer", ())):  # images from which a mosaic takes its others
            for index in state["buffer"]:
                self.dataset.load_image(index)
            self.dataset.buffer[:] = state["buffer"]
