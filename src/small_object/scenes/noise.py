"""Tileable noise and the arithmetic of shades."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

SIZE = 512  # texels


@lru_cache(maxsize=8)
def noise_texture(key: int, slope: float) -> np.ndarray:
    """Make a tileable noise (513, 513) float32 of mean 0 and deviation 1; larger slopes are smoother."""
    rng = np.random.default_rng([77, key])
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]) * SIZE
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(f, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    tile = (noise / noise.std()).astype(np.float32)
    return cv2.copyMakeBorder(tile, 0, 1, 0, 1, cv2.BORDER_WRAP)  # for reading between the last texel and the first


def sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Read a texture at float32 coordinates, `scale` texels a unit, bilinearly."""
    x, y = x * np.float32(scale / SIZE), y * np.float32(scale / SIZE)
    return cv2.remap(texture, (x - np.floor(x)) * SIZE, (y - np.floor(y)) * SIZE, cv2.INTER_LINEAR)


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise from 0 at `low` to 1 at `high`."""
    return np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolate from a to b."""
    return a + (b - a) * share
