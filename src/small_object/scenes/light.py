"""The daylight of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SKIES = (("#3f7fc4", "#cfdde9"), ("#5b8fc0", "#d9e0e6"), ("#7f9fbf", "#dcdfe0"), ("#5a86b4", "#e6dccb"))  # zenith, haze


@lru_cache(maxsize=512)
def bgr(code: str) -> np.ndarray:
    """Turn "#rrggbb" into BGR as float32, shape (3,), 0 to 255; not to be written to."""
    colour = np.array([int(code[i : i + 2], 16) for i in (5, 3, 1)], np.float32)
    colour.setflags(write=False)
    return colour


@dataclass(frozen=True)
class Light:
    """Colours are BGR (3,); those of lights are 1 for full white, those of the sky 0 to 255."""

    direction: np.ndarray  # unit vector to the sun
    sun: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    haze: np.ndarray
    visibility: float  # metres at which haze takes 63 %

    def shade(self, albedo: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the colours (N, 3) of matt faces with these albedos (N, 3) and unit normals (N, 3)."""
        open_sky = 0.85 + 0.15 * normals[:, 2:]
        return np.asarray(albedo * (self.ambient * open_sky + self.sun * (normals @ self.direction).clip(0)[:, None]))

    def veil(self, metres: np.ndarray | float) -> np.ndarray:
        """Return the share of haze in what is seen at a distance."""
        return np.asarray(1 - np.exp(-np.asarray(metres) / self.visibility), np.float32)


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a daylight with the sun behind the camera."""
    up, azimuth, gain = math.radians(rng.uniform(28, 60)), math.radians(rng.uniform(-150, -30)), rng.uniform(0.85, 1.1)
    direction = (math.cos(up) * math.cos(azimuth), math.cos(up) * math.sin(azimuth), math.sin(up))
    sun, ambient = np.array([0.56, 0.62, 0.66]) * gain, np.array([0.5, 0.48, 0.45]) * gain
    zenith, haze = (np.minimum(bgr(code) * gain, 250) for code in SKIES[rng.integers(len(SKIES))])
    return Light(np.array(direction), sun, ambient, zenith, haze, rng.uniform(3500, 9000))
