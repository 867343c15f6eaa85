"""The light of a scene and the colours in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# Zenith, haze, sun, ambient (RGB), the sun's elevation in degrees, shadow, clouds, visibility in metres, probability
WEATHER = (
    ("#3f78b8", "#c5d6e4", (0.78, 0.75, 0.68), (0.40, 0.43, 0.48), (32, 62), 0.56, (0.1, 0.4), (6000, 12000), 0.28),
    ("#4d82b8", "#ccd8e2", (0.70, 0.67, 0.61), (0.42, 0.44, 0.48), (25, 55), 0.50, (0.4, 0.7), (4500, 9000), 0.26),
    ("#587fa8", "#e8cfae", (0.92, 0.72, 0.47), (0.33, 0.35, 0.41), (11, 22), 0.50, (0.15, 0.55), (3500, 7000), 0.14),
    ("#a3abb3", "#cfd3d6", (0.16, 0.16, 0.16), (0.66, 0.67, 0.69), (50, 75), 0.22, (0.9, 1.0), (2500, 6000), 0.18),
    ("#9db4c8", "#d8dcdc", (0.50, 0.48, 0.43), (0.52, 0.53, 0.55), (25, 50), 0.36, (0.2, 0.5), (1300, 2600), 0.09),
    ("#3a4a72", "#d9a98b", (0.42, 0.30, 0.22), (0.36, 0.37, 0.44), (8, 14), 0.28, (0.3, 0.7), (3500, 7000), 0.05),
)


@lru_cache(maxsize=512)
def bgr(code: str) -> np.ndarray:
    """Turn "#rrggbb" into BGR as float32, shape (3,), 0 to 255; not to be written to."""
    colour = np.array([int(code[i : i + 2], 16) for i in (5, 3, 1)], np.float32)
    colour.setflags(write=False)
    return colour


@dataclass(frozen=True)
class Light:
    """Colours (BGR, 1 = full white for lights) and geometry of a scene's light."""

    zenith: np.ndarray
    haze: np.ndarray
    sun: np.ndarray
    ambient: np.ndarray
    direction: np.ndarray  # unit vector to the sun
    shadow: float  # how dark shadows are, 0 to 1
    clouds: float  # share of the sky under clouds, 0 to 1
    visibility: float  # metres at which haze takes 63 %

    def ground_colour(self, albedo: np.ndarray, metres: float) -> np.ndarray:
        """Return the colour of level ground or woods at a distance, seen through the haze."""
        lit = albedo * (self.ambient + self.sun * max(0.25, float(self.direction[2])))
        return lit + (self.haze - lit) * (1 - math.exp(-metres / self.visibility))


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the weather and the time of day."""
    weather: Any = WEATHER[rng.choice(len(WEATHER), p=[w[-1] for w in WEATHER])]
    zenith, haze, sun, ambient, elevation, shadow, clouds, visibility, _ = weather
    up, azimuth = math.radians(rng.uniform(*elevation)), rng.uniform(0, 2 * math.pi)
    direction = np.array([math.cos(up) * math.cos(azimuth), math.cos(up) * math.sin(azimuth), math.sin(up)], np.float32)
    gain = rng.uniform(0.92, 1.08)
    tint = rng.uniform(0.95, 1.05, 3).astype(np.float32)
    sun, ambient = (np.array(rgb[::-1], np.float32) * gain for rgb in (sun, ambient))
    zenith, haze = np.minimum(bgr(zenith) * tint * gain, 255), np.minimum(bgr(haze) * tint * gain, 250)
    return Light(zenith, haze, sun, ambient, direction, shadow, rng.uniform(*clouds), rng.uniform(*visibility))
