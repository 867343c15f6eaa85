"""Models of ground workers and their clothes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from small_object.scenes.solids import Model, ModelBuilder, ring

STRIDES = {"stand": 0.04, "walk": 0.2, "stride": 0.32}  # metres that a foot is ahead
TORSO = (  # z, half depth, half width
    (0.84, 0.12, 0.17), (1.02, 0.13, 0.18), (1.1, 0.135, 0.19), (1.28, 0.14, 0.21), (1.36, 0.14, 0.22), (1.5, 0.08, 0.14)
)  # fmt: skip
HEAD = ((1.5, 0.06, 0.055), (1.58, 0.1, 0.085), (1.68, 0.11, 0.09), (1.7, 0.13, 0.11), (1.8, 0.05, 0.045))


def draw_clothes(rng: np.random.Generator) -> dict[str, str]:
    """Draw a worker's colours."""
    vest = str(rng.choice(["#d9f022", "#ff6a13"]))
    trousers, helmet = rng.choice(["#1f2a44", "#23262b", "#3a3a36"]), rng.choice(["#f4f4f0", "#f2c417", "#d7372b"])
    skin = rng.choice(["#d9a582", "#c98f6c", "#8d5a3c"])
    return {"vest": vest, "trousers": str(trousers), "helmet": str(helmet), "skin": str(skin)}


@lru_cache
def build_person(pose: str) -> Model:
    """Build a ground worker, 1.8 m tall, in a pose of `STRIDES`."""
    model = ModelBuilder()
    torso = [ring(2, z, (0, 0), (depth, width), 8) for z, depth, width in TORSO]
    model.loft(torso, lambda station, _: "reflect" if station in (1, 3) else "vest", ("trousers", "vest"))
    head = [ring(2, z, (0.01, 0), (depth, width), 8) for z, depth, width in HEAD]
    model.loft(head, lambda station, _: "helmet" if station >= 2 else "skin")
    for side in (-1, 1):
        step = STRIDES[pose] * side
        leg = ((0.9, 0.0, 0.1), (0.5, step * 0.55, 0.075), (0.0, step, 0.065))
        model.loft([ring(2, z, (x, side * 0.1), (r, r), 6) for z, x, r in leg], "trousers")
        model.box((step + 0.06, side * 0.1, 0.05), (0.28, 0.12, 0.1), "tyre")
        arm = ((1.44, 0.0, 0.07), (1.1, -step * 0.5, 0.055), (0.82, -step * 0.6 + 0.06, 0.045))
        model.loft([ring(2, z, (x, side * 0.26), (r, r), 6) for z, x, r in arm], "vest", ("skin", "vest"))
    return model.build()
