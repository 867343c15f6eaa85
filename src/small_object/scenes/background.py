"""Renders what lies behind the objects of a scene: the sky, the horizon and the bare ground."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from small_object.scenes.light import bgr
from small_object.scenes.scene import Scene

MAX_PIXELS = 48000  # rendered at a time, so that they stay in the processor's cache
SIZE = 512  # texels
WOODS = 3000.0  # metres to the trees that close the view
WOODS_COLOUR = "#33452b"
LINKS = (-260.0, 330.0)  # u of the taxiways between the apron and the strips


@lru_cache(maxsize=8)
def noise_texture(key: int, slope: float) -> np.ndarray:
    """Make a tileable noise (513, 513) float32 of mean 0 and deviation 1; larger slopes are smoother."""
    rng = np.random.default_rng([77, key])
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]) * SIZE
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(f, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    tile = (noise / noise.std()).astype(np.float32)
    # One more row and column, to read between the last texel and the first
    return np.asarray(cv2.copyMakeBorder(tile, 0, 1, 0, 1, cv2.BORDER_WRAP))


def sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
    """Read a texture at float32 coordinates, `scale` texels a unit, bilinearly."""
    x, y = x * np.float32(scale / SIZE), y * np.float32(scale / SIZE)
    return np.asarray(cv2.remap(texture, (x - np.floor(x)) * SIZE, (y - np.floor(y)) * SIZE, cv2.INTER_LINEAR))


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise from 0 at `low` to 1 at `high`."""
    return np.asarray(np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1))


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolate from a to b."""
    return np.asarray(a + (b - a) * share)


def render_sky(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Render the sky and what lies on the horizon, (rows, width, 3) uint8 BGR, down to the horizon."""
    cam, light = scene.camera, scene.light
    rows = int(min(cam.height, max(0, math.ceil(cam.horizon)))) + 1
    angle = np.maximum(cam.horizon - np.arange(rows, dtype=np.float32), 0)[:, None] / np.float32(cam.focal)
    bearing = (np.arange(cam.width, dtype=np.float32)[None] - cam.width / 2) / np.float32(cam.focal)
    # A layer of clouds at a fixed height, so that they shrink towards the horizon
    offset_x, offset_y = rng.uniform(0, 512, 2).astype(np.float32)
    level = 1.5 - 2.7 * light.clouds
    density = 0.92 if light.clouds < 0.85 else 0.8
    bright = np.minimum(light.haze * 0.35 + 255 * 0.65 * np.minimum(light.sun + light.ambient, 1.05), 252)
    dark = light.haze * 0.3 + light.zenith * 0.2 + bright * 0.34
    # Colours of four layers: haze, what the zenith adds, clouds, what their shade adds
    colours = np.stack([light.haze, light.zenith - light.haze, bright, dark - bright], 1).astype(np.float32)
    blue, fade, far = 1 - np.exp(-4.5 * angle), ramp(angle, 0.004, 0.06) * density, 26 / (angle + 0.055)
    east, north = np.sin(bearing), np.cos(bearing)
    sky = np.empty((rows, cam.width, 3), np.float32)
    step = max(8, MAX_PIXELS // cam.width)
    for top in range(0, rows, step):
        part = slice(top, top + step)
        x, y = far[part] * east + offset_x, far[part] * north + offset_y
        cloud = sample(noise_texture(2, 1.3), x, y, 3.1) * 0.35 + sample(noise_texture(1, 1.75), x, y, 1.0)
        cover = ramp(cloud, level, level + 0.9) * fade[part]
        shade = ramp(cloud, level + 0.3, level + 2.2) * cover
        clear = 1 - cover
        sky[part] = cv2.transform(cv2.merge([clear, clear * blue[part], cover, shade]), colours)
    # Hills and a line of trees
    hills = ((rng.uniform(0.008, 0.03), 9000, "#5d7460"), (rng.uniform(0.004, 0.012), 3800, "#4b6344"))
    profile = noise_texture(3, 1.6)
    for number, (height, metres, colour) in enumerate(hills, 1):
        wave = profile[rng.integers(512)]
        ridge = _interpolate(wave, (bearing[0] + rng.uniform(0, 9)) * 240 * number)
        crest = cam.horizon - cam.focal * height * np.clip(0.55 + 0.5 * ridge, 0, 2)
        _fill_below(sky, crest, light.ground_colour(bgr(colour), metres))
    wood, clump = (
        _interpolate(at=bearing[0] * n + rng.uniform(0, 512), row=texture[rng.integers(512), :512])
        for n, texture in ((3000, noise_texture(4, 0.9)), (130, profile))
    )
    trees = cam.focal * (9 + 2.2 * wood + 4 * clump).clip(2) / WOODS
    _fill_below(sky, cam.horizon - trees, light.ground_colour(bgr(WOODS_COLOUR), WOODS))
    return cv2.convertScaleAbs(sky)


def _interpolate(row: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Read a row of a texture at float coordinates."""
    return np.asarray(np.interp(np.mod(at, 512), np.arange(len(row)), row))


def _fill_below(sky: np.ndarray, top: np.ndarray, colour: np.ndarray) -> None:
    """Fill each column of an image from a row (float, (width,)) down, in place."""
    first = max(0, math.floor(float(top.min())) - 1)
    rows = np.arange(first, len(sky), dtype=np.float32)[:, None]
    cover = np.clip(rows - top[None].astype(np.float32) + 0.5, 0, 1)[..., None]
    sky[first:] = mix(sky[first:], colour.astype(np.float32), cover)


class Ground:
    """The bare ground of a scene, with a random look."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene = scene
        self.offset = rng.uniform(0, 9000, 2).astype(np.float32)
        self.slab = float(rng.choice([5.0, 6.0, 7.5]))
        tones = rng.normal(0, 1, (64, 64)).astype(np.float32)
        tones[rng.random((64, 64)) < 0.03] *= 4  # slabs that were replaced
        self.tones = tones.ravel()
        self.base = rng.uniform(148, 188) if rng.random() < 0.75 else rng.uniform(100, 125)
        self.asphalt = rng.uniform(92, 122)
        warm = np.array([0.955, 0.99, 1.0]) * rng.uniform(0.985, 1.0, 3)
        lawn = bgr(("#6d8050", "#7b8a56", "#627a4a", "#8f8d62")[rng.integers(4)])
        self.colours = np.stack([warm, lawn, np.array([1.0, 0.99, 0.97])], 1).astype(np.float32)  # (BGR, surface)

    def rows(self, top: int, bottom: int, clear: np.ndarray) -> list[np.ndarray]:
        """Render the pixel rows `top` to `bottom`.

        Returns:
            Brightness of concrete, grass and asphalt, (rows, width) float32 each, times `clear` (rows, 1), the share of
            the light that comes through the haze.
        """
        scene, cam = self.scene, self.scene.camera
        u, v = scene.grid(*cam.ground(top, bottom))
        # Metres per pixel, to the side and along the view, which differ little along a row
        distance = cam.ground_distance(top, bottom)
        across = distance / np.float32(cam.focal)
        pixel = np.maximum(distance * across / np.float32(cam.mount), across)
        apron = _coverage(v, -1e6, scene.apron, pixel)
        apron *= _coverage(u, -scene.side, scene.side, np.maximum(across, pixel * 0.5))
        blotch = self._noise(5, 1.5, u, v, 1.7, np.clip(1.3 - pixel / 14, 0, 1))
        grit = self._noise(6, 0.7, u, v, 21, np.clip(1.3 - pixel / 1.2, 0, 1))
        concrete = np.zeros_like(u)
        if apron.any():
            concrete = 4.5 * blotch + np.float32(self.base) + 3.0 * grit
            self._add_wear(concrete, u, v, across, pixel)
        concrete *= apron
        concrete *= clear
        if apron.min() == 1:  # nothing else, as in most of the rows near the camera
            return [concrete, np.zeros_like(u), np.zeros_like(u)]
        tar = np.zeros_like(u)
        for low, high, kind in scene.strips:
            np.maximum(tar, _coverage(v, low, high, pixel) * np.float32(0.94 if kind == "runway" else 1.0), out=tar)
        last = max((s.high for s in scene.strips if s.kind != "road"), default=0.0)
        if last:
            along = _coverage(v, scene.apron - 1, last, pixel)
            side = np.maximum(across, pixel * np.float32(abs(math.sin(scene.turn))))
            for middle in LINKS:
                np.maximum(tar, _coverage(u, middle - 12, middle + 12, side) * along, out=tar)
        tar *= 1 - apron
        lawn = 1 + 0.07 * blotch + 0.025 * np.clip(1.2 - pixel / 9, 0, 1) * np.sin(v * np.float32(1 / 9)) + 0.05 * grit
        asphalt = self.asphalt + 3.5 * blotch + 3.0 * grit
        return [concrete, lawn * (1 - apron - tar) * clear, asphalt * tar * clear]

    def _add_wear(
        self, concrete: np.ndarray, u: np.ndarray, v: np.ndarray, across: np.ndarray, pixel: np.ndarray
    ) -> None:
        """Add stains, the tone of each slab and the joints to the brightness of concrete, in place."""
        stains = self._noise(7, 1.15, u, v, 4.3, np.ones(1, np.float32))
        concrete -= ramp(stains, 1.9, 2.9) * (30 * np.clip(1.4 - pixel / 3, 0, 1))
        tu, tv = u * np.float32(1 / self.slab), v * np.float32(1 / self.slab)
        slabs = ((np.floor(tv).astype(np.int32) & 63) << 6) | (np.floor(tu).astype(np.int32) & 63)
        concrete += self.tones[slabs] * (2.4 * np.clip(1.4 - pixel / self.slab, 0, 1))
        for t, size in ((tu, np.minimum(across * 1.3, pixel)), (tv, pixel)):
            dark = 46 * np.minimum(1, 0.06 / size) * np.clip(1.5 - size / 2, 0, 1)
            if dark.max() >= 0.5:
                joint = np.abs(t - np.rint(t)) * (-self.slab / size) + (0.5 + 0.03 / size)
                concrete -= np.clip(joint, 0, 1) * dark

    def _noise(
        self, key: int, slope: float, u: np.ndarray, v: np.ndarray, scale: float, fade: np.ndarray
    ) -> np.ndarray:
        """Return noise in the grid, faded out where it is finer than a pixel."""
        if not fade.any():
            return np.zeros_like(u)
        return np.asarray(sample(noise_texture(key, slope), u + self.offset[0], v + self.offset[1], scale) * fade)


def _coverage(v: np.ndarray, low: float, high: float, pixel: np.ndarray) -> np.ndarray:
    """Return the share of each pixel, `pixel` metres long, that lies between two lines."""
    return np.asarray(np.clip(np.minimum(v - np.float32(low), np.float32(high) - v) / pixel + np.float32(0.5), 0, 1))


def render_ground(
    image: np.ndarray, ground: Ground, markings: list[tuple[np.ndarray, np.ndarray, float]], shadows: np.ndarray
) -> None:
    """Render all that lies below the horizon into a (height, width, 3) uint8 BGR image.

    `markings` are coverage (height, width) uint8, BGR colour and opacity of each layer, `shadows` darkness alike.
    """
    cam, light = ground.scene.camera, ground.scene.light
    sheltered = light.ambient * (1 - (light.shadow if light.shadow < 0.25 else 0.12))
    full = light.ambient + light.sun * max(0.3, float(light.direction[2]))
    first = int(max(0, math.floor(cam.horizon) + 1))
    if first >= cam.height:
        return
    distance = cam.ground_distance(first, cam.height)
    haze = 1 - np.exp(np.minimum(distance, WOODS) * np.float32(-1 / light.visibility))
    far = int(np.count_nonzero(distance > 0.97 * WOODS))
    woods = mix(bgr(WOODS_COLOUR) * full, light.haze, haze[:far])
    image[first : first + far] = np.clip(woods, 0, 255)[:, None]
    # The ground in full light: three surfaces and the haze before them
    colours = np.concatenate([ground.colours * full[:, None], light.haze[:, None]], 1).astype(np.float32)
    step = max(8, MAX_PIXELS // cam.width)
    for top in range(first + far, cam.height, step):
        bottom = min(top + step, cam.height)
        veil = haze[top - first : bottom - first]
        layers = ground.rows(top, bottom, 1 - veil)
        block = cv2.transform(cv2.merge([*layers, np.broadcast_to(veil, layers[0].shape)]), colours)
        pixels = block.reshape(-1, 3)
        for mask, colour, opacity in markings:
            at, share = _nonzero(mask[top:bottom], opacity / 255)
            seen = mix((colour * full).astype(np.float32), light.haze.astype(np.float32), veil)
            pixels[at] = mix(pixels[at], seen[at // cam.width], share)
        # What shadows take is the sun's share of the light that the ground sends
        at, share = _nonzero(shadows[top:bottom], 1 / 255)
        behind = (light.haze * veil).astype(np.float32)[at // cam.width]
        pixels[at] -= (pixels[at] - behind) * (share * (1 - sheltered / full).astype(np.float32))
        image[top:bottom] = cv2.convertScaleAbs(block)


def _nonzero(mask: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where a uint8 mask is set: flat indices (N,) and the scaled values there (N, 1) float32."""
    at = np.flatnonzero(mask)
    return at, mask.ravel()[at].astype(np.float32)[:, None] * np.float32(scale)
