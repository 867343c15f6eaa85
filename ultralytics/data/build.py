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


def place_of(loader: InfiniteDataLoader) -> dict[str, Any]:
    """Return where a loader is, for `bring_to`; only without loader processes, which read ahead.

    Args:
        loader: The loader.
    """
    return {"born": loader._born, "drawn": loader._drawn, "buffer": list(getattr(loader.dataset, "buffer", ()))}


def bring_to(loader: InfiniteDataLoader, place: dict[str, Any], keep: bool) -> None:
    """Bring a loader to where another one of the same data was.

    Args:
        loader: The loader.
        place: What `place_of` said of the other.
        keep: Whether its next `reset` is to be left out.
    """
    loader.generator.set_state(place["born"])
    loader.iterator = loader._get_iterator()
    for _ in range(place["drawn"]):  # indices only, no images
        next(loader.iterator._sampler_iter)
    loader._drawn, loader._keep = place["drawn"], keep
    if place["buffer"] != list(getattr(loader.dataset, "buffer", ())):  # images from which a mosaic takes its others
        for index in place["buffer"]:
            loader.dataset.load_image(index)
        loader.dataset.buffer[:] = place["buffer"]
