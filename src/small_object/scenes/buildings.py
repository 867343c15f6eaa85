"""Models of terminals and hangars, which carry no label."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from small_object.scenes.solids import Model, ModelBuilder

PIER_LENGTH, PIER_DEPTH = 36.0, 40.0  # metres, of a piece of terminal
WALLS = ("#c9ccd0", "#b7bcc2", "#d3cdc0", "#a9b4bd")


@lru_cache
def build_building(kind: str) -> Model:
    """Build a "terminal" (one piece of a long one) or a "hangar"; its front looks along +x."""
    model = ModelBuilder()
    depth, width, height, bands, step, material = {
        "terminal": (PIER_DEPTH, PIER_LENGTH, 13.0, ((4.0, 7.0), (9.0, 11.5)), 4.5, "window"),
        "hangar": (50.0, 60.0, 18.0, ((0.0, 14.5),), 12.0, "gate"),
    }[kind]
    model.box((0, 0, height / 2), (depth, width, height), "wall", "roof")
    for (low, high), a, x in ((b, a, x) for b in bands for a in np.arange(0, width, step) for x in (-depth, depth)):
        b, a = a + step - 0.3 - width / 2, a + 0.3 - width / 2
        model.paint([(x / 2, a, low), (x / 2, b, low), (x / 2, b, high), (x / 2, a, high)], material)
    return model.build()
