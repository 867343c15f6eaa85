"""Adds accuracy by object size to the results of box metrics."""

from ultralytics.utils.metrics import DetMetrics

from ultralytics_overlay import require

_stock_results = vars(DetMetrics).get("results_dict")
require("ultralytics.utils.metrics.DetMetrics.results_dict", isinstance(_stock_results, property), "is not a property")
require("ultralytics.utils.metrics.DetMetrics.size", not hasattr(DetMetrics, "size"), "is taken")


def _results(self: DetMetrics) -> dict[str, float]:
    """Return upstream's results and, where measured, those by object size."""
    results = _stock_results.fget(self)
    return results if self.size is None else {**results, **self.size.results()}


# In place: the metrics of the other tasks inherit from upstream's class.
DetMetrics.size = None  # a `small_object.sizes.SizeMetrics` after a validation that measured it
DetMetrics.results_dict = property(_results)
