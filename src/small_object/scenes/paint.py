"""Paints made-up airport scenes: sky, ground, markings, shadows, the things that stand there, and the exposure.

Only `paint_scene` and `label_scene` are for other modules. Full-size work is done in float32 on a few rows at a time,
and only where there is something to do: it is what the time to make a set goes into.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import cv2
import numpy as np

from small_object.scenes import models
from small_object.scenes.layout import WOODS, Light, Scene, Thing
from small_object.scenes.models import Canvas, bgr, each_corner, normals, place

MIN_VISIBLE = 0.25  # of an object's own area; what shows less of itself is taken out of the scene
MIN_SIDE = 3.0  # pixels; narrower boxes can't be told from noise
BLOCK = 48000  # pixels worked on at a time, so that they stay in the processor's cache


# Textures -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _texture(key: int, slope: float, size: int = 512) -> np.ndarray:
    """Make a tileable noise (size + 1, size + 1) float32 of mean 0 and deviation 1; larger slopes are smoother."""
    rng = np.random.default_rng([77, key])
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / np.maximum(f, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (size, size))
    tile = (noise / noise.std()).astype(np.float32)
    return cv2.copyMakeBorder(tile, 0, 1, 0, 1, cv2.BORDER_WRAP)  # for reading between the last texel and the first


@lru_cache(maxsize=1)
def _grain(rows: int = 128, columns: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Make sensor noise of deviation 1: brightness (rows, columns, 1) and colour (rows, columns, 3), float32."""
    rng = np.random.default_rng(78)
    one, three = (rng.standard_normal((rows, columns, n), dtype=np.float32) for n in (1, 3))
    return one, three


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Read a tileable texture at float coordinates, `scale` texels a unit, bilinearly."""
    size = texture.shape[0] - 1
    wrapped = []
    for c in (x, y):
        t = np.multiply(c, np.float32(scale / size))
        t -= np.floor(t)
        t *= size
        wrapped.append(t)
    return cv2.remap(texture, *wrapped, cv2.INTER_LINEAR)


def _mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + (b - a) * t


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = (x - np.float32(low)) * np.float32(1 / (high - low))
    return np.clip(t, 0, 1, out=t)


# Sky and ground -------------------------------------------------------------------------------------------------------


def _sky(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw the sky and what lies on the horizon: (rows, width, 3) uint8 BGR, down to the horizon."""
    cam, light = scene.camera, scene.light
    rows = int(min(cam.height, max(0, math.ceil(cam.horizon)))) + 1
    angle = np.maximum(cam.horizon - np.arange(rows, dtype=np.float32), 0)[:, None] / np.float32(cam.focal)
    bearing = (np.arange(cam.width, dtype=np.float32)[None] - cam.width / 2) / np.float32(cam.focal)
    # A layer of clouds at a fixed height, so that they shrink towards the horizon
    ox, oy = rng.uniform(0, 512, 2).astype(np.float32)
    level = 1.5 - 2.7 * light.clouds
    density = 0.92 if light.clouds < 0.85 else 0.8
    bright = np.minimum(light.haze * 0.35 + 255 * 0.65 * np.minimum(light.sun + light.ambient, 1.05), 252)
    dark = light.haze * 0.3 + light.zenith * 0.2 + bright * 0.34
    # Colours of four layers: haze, what the zenith adds, clouds, what their shade adds
    colours = np.stack([light.haze, light.zenith - light.haze, bright, dark - bright], 1).astype(np.float32)
    blue, fade, far = 1 - np.exp(-4.5 * angle), _ramp(angle, 0.004, 0.06) * density, 26 / (angle + 0.055)
    east, north = np.sin(bearing), np.cos(bearing)
    sky = np.empty((rows, cam.width, 3), np.float32)
    step = max(8, BLOCK // cam.width)
    for top in range(0, rows, step):
        part = slice(top, top + step)
        x, y = far[part] * east + ox, far[part] * north + oy
        cloud = _sample(_texture(2, 1.3), x, y, 3.1)
        cloud *= 0.35
        cloud += _sample(_texture(1, 1.75), x, y)
        cover = _ramp(cloud, level, level + 0.9)
        cover *= fade[part]
        clear = 1 - cover
        shade = _ramp(cloud, level + 0.3, level + 2.2)
        shade *= cover
        sky[part] = cv2.transform(cv2.merge([clear, clear * blue[part], cover, shade]), colours)
    # Hills and a line of trees
    profile = _texture(3, 1.6)[:, :512]
    for index, (height, metres, colour) in enumerate(
        ((rng.uniform(0.008, 0.03), 9000, "#5d7460"), (rng.uniform(0.004, 0.012), 3800, "#4b6344"))
    ):
        wave = profile[int(rng.integers(512))]
        at = (bearing[0] + rng.uniform(0, 9)) * 240 * (index + 1)
        ridge = np.interp(np.mod(at, 512), np.arange(513), np.append(wave, wave[0]))
        top = cam.horizon - cam.focal * height * np.clip(0.55 + 0.5 * ridge, 0, 2)
        _silhouette(sky, top, _aerial(light, bgr(colour), metres))
    wood, clump = (
        np.interp(np.mod(bearing[0] * n + rng.uniform(0, 512), 512), np.arange(512), t[int(rng.integers(512)), :512])
        for n, t in ((3000, _texture(4, 0.9)), (130, profile))
    )
    trees = cam.focal * (9 + 2.2 * wood + 4 * clump).clip(2) / WOODS
    _silhouette(sky, cam.horizon - trees, _aerial(light, bgr("#33452b"), WOODS))
    return cv2.convertScaleAbs(sky)


def _silhouette(sky: np.ndarray, top: np.ndarray, colour: np.ndarray) -> None:
    """Fill each column of an image from a row (float, (width,)) down, in place."""
    first = max(0, math.floor(float(top.min())) - 1)
    rows = np.arange(first, len(sky), dtype=np.float32)[:, None]
    cover = np.clip(rows - top[None].astype(np.float32) + 0.5, 0, 1)[..., None]
    sky[first:] = _mix(sky[first:], colour.astype(np.float32), cover)


def _aerial(light: Light, albedo: np.ndarray, metres: float) -> np.ndarray:
    """Colour of level ground or woods in this light at a distance."""
    lit = albedo * (light.ambient + light.sun * max(0.25, float(light.direction[2])))
    return _mix(lit, light.haze, 1 - math.exp(-metres / light.reach))


def _band(v: np.ndarray, low: float, high: float, pixel: np.ndarray) -> np.ndarray | None:
    """Share of each pixel, `pixel` metres long, that lies between two lines; None if there is none."""
    half = float(pixel.max()) / 2
    least, most = float(v.min()), float(v.max())
    if most < low - half or least > high + half:
        return None
    share = None
    if least < low + half:
        share = v - np.float32(low)
    if most > high - half:
        share = np.float32(high) - v if share is None else np.minimum(share, np.float32(high) - v, out=share)
    if share is None:
        return np.ones_like(v)
    share /= pixel
    share += 0.5
    return np.clip(share, 0, 1, out=share)


class Ground:
    """The bare ground of a scene: slabs of concrete, grass and asphalt. Draws its random look once."""

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
        """Paint image rows: brightness (rows, width) float32 of concrete, grass and asphalt, seen through haze.

        Args:
            top (int): First row.
            bottom (int): Row after the last.
            clear (np.ndarray): (rows, 1) share of the light that comes through the haze.
        """
        scene, cam = self.scene, self.scene.camera
        x, y = cam.ground(top, bottom)
        u, v = scene.grid(x, y)
        # Metres a pixel, to the side and along the view, which differ little along a row
        distance = row_distances(scene, top, bottom)
        across = distance / np.float32(cam.focal)
        pixel = np.maximum(distance * across / np.float32(cam.mount), across)
        fine, coarse = np.clip(1.3 - pixel / 1.2, 0, 1), np.clip(1.3 - pixel / 14, 0, 1)
        su, sv = u + self.offset[0], v + self.offset[1]
        blotch = _sample(_texture(5, 1.5), su, sv, 1.7) * coarse if coarse.any() else np.zeros_like(su)
        grit = _sample(_texture(6, 0.7), su, sv, 21) * fine if fine.any() else None
        # Shares of each pixel: concrete and asphalt; the rest is grass
        side = np.maximum(across, pixel * 0.5)
        is_apron, wide = _band(v, -1e6, scene.apron, pixel), _band(u, -scene.side, scene.side, side)
        is_apron = None if is_apron is None or wide is None else is_apron * wide
        if is_apron is not None and is_apron.min() == 1:  # nothing else, as in most of the rows near the camera
            concrete = self._concrete(u, v, su, sv, across, pixel, blotch, grit)
            concrete *= clear
            return [concrete, np.zeros_like(u), np.zeros_like(u)]
        is_tar = np.zeros_like(u)
        for low, high, kind in scene.strips:
            strip = _band(v, low, high, pixel)
            if strip is not None:
                np.maximum(is_tar, strip * np.float32(0.94 if kind == "runway" else 1.0), out=is_tar)
        last = max((s[1] for s in scene.strips if s[2] != "road"), default=0.0)
        along = _band(v, scene.apron - 1, last, pixel) if last else None
        for u0 in (-260.0, 330.0) if along is not None else ():  # links between the apron and the strips
            link = _band(u, u0 - 12, u0 + 12, np.maximum(across, pixel * np.float32(abs(math.sin(scene.turn)))))
            if link is not None:
                np.maximum(is_tar, link * along, out=is_tar)
        if is_apron is None:
            concrete, is_lawn = np.zeros_like(u), 1 - is_tar
        else:
            rest = 1 - is_apron
            is_tar *= rest
            is_lawn = np.subtract(rest, is_tar, out=rest)
            concrete = self._concrete(u, v, su, sv, across, pixel, blotch, grit) * is_apron
        lawn = 1 + 0.07 * blotch + 0.025 * np.clip(1.2 - pixel / 9, 0, 1) * np.sin(v * np.float32(1 / 9))
        tar = self.asphalt + 3.5 * blotch
        if grit is not None:
            lawn += 0.05 * grit
            tar += 3.0 * grit
        concrete *= clear
        lawn *= is_lawn
        lawn *= clear
        tar *= is_tar
        tar *= clear
        return [concrete, lawn, tar]

    def _concrete(
        self,
        u: np.ndarray,
        v: np.ndarray,
        su: np.ndarray,
        sv: np.ndarray,
        across: np.ndarray,
        pixel: np.ndarray,
        blotch: np.ndarray,
        grit: np.ndarray | None,
    ) -> np.ndarray:
        """Paint concrete in slabs, each with a tone of its own, with stains: brightness (rows, width) float32."""
        concrete = 4.5 * blotch
        concrete += np.float32(self.base)
        if grit is not None:
            concrete += 3.0 * grit
        fade = np.clip(1.4 - pixel / 3, 0, 1)
        if fade.any():  # oil and rubber
            stains = _ramp(_sample(_texture(7, 1.15), su, sv, 4.3), 1.9, 2.9)
            stains *= 30 * fade
            concrete -= stains
        tu, tv = u * np.float32(1 / self.slab), v * np.float32(1 / self.slab)
        fade = 2.4 * np.clip(1.4 - pixel / self.slab, 0, 1)
        if fade.any():
            slabs = np.floor(tv).astype(np.int32)
            slabs &= 63
            slabs <<= 6
            slabs |= np.floor(tu).astype(np.int32) & 63
            concrete += self.tones[slabs] * fade
        for t, size in ((tu, np.minimum(across * 1.3, pixel)), (tv, pixel)):
            dark = 46 * np.minimum(1, 0.06 / size) * np.clip(1.5 - size / 2, 0, 1)
            if dark.max() < 0.5:
                continue
            t -= np.rint(t)
            joint = np.abs(t, out=t)
            joint *= -self.slab / size
            joint += 0.5 + 0.03 / size
            np.clip(joint, 0, 1, out=joint)
            joint *= dark
            concrete -= joint
        return concrete


def row_distances(scene: Scene, top: int, bottom: int) -> np.ndarray:
    """Find how far away the ground in image rows is, (rows, 1) float32 metres, in the mean over a row."""
    cam = scene.camera
    v = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
    if cam.panorama:
        return cam.mount * cam.focal / np.maximum(v - cam.horizon, 0.05)
    d, c, s = (v - cam.height / 2) / cam.focal, math.cos(cam.pitch), math.sin(cam.pitch)
    t = cam.mount / np.maximum(d * c + s, 0.05 / cam.focal)
    reach = cam.width / 4 / cam.focal  # half of the way to the image's side
    return (t * np.hypot(c - d * s, reach)).astype(np.float32)


# Markings and shadows -------------------------------------------------------------------------------------------------


class _Paint:
    """A layer of ground markings of one colour: coverage (height, width) uint8."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mask = np.zeros((scene.camera.height, scene.camera.width), np.uint8)
        self.parts: list[tuple[np.ndarray, np.ndarray, float]] = []  # edges (2, N, 2), kept (N - 1,), level

    def path(
        self, points, width: float, step: float = 4.0, dash: tuple[float, float] | None = None, level: float = 1.0
    ) -> None:
        """Draw a line through world points (N, 2), `width` metres wide, dashed as (on, off) metres."""
        p = np.asarray(points, np.float64)
        d = p[1:] - p[:-1]
        length = np.append(0, np.cumsum(np.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2)))
        total = float(length[-1])
        if total < 0.05:
            return
        n = max(2, int(total / step) + 1) if dash is None else max(2, int(total / min(dash)) * 2)
        if len(p) == 2:
            q = p[0] + np.arange(n)[:, None] * (d / (n - 1))
            side = np.array([-d[0, 1], d[0, 0]]) * (width / 2 / total)
        else:
            s = np.linspace(0, total, n)
            q = np.stack([np.interp(s, length, p[:, i]) for i in (0, 1)], 1)
            way = np.gradient(q, axis=0)
            way *= width / 2 / np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-9)[:, None]
            side = np.stack([-way[:, 1], way[:, 0]], 1)
        keep = np.ones(n - 1, bool)
        if dash is not None:
            keep = np.mod((np.arange(n - 1) + 0.5) * total / (n - 1), sum(dash)) < dash[0]
        self.parts.append((np.stack([q + side, q - side]), keep, level))

    def local(self, x: float, y: float, heading: float, points, width: float, **kwargs) -> None:
        """Draw a line given in the frame of a stand."""
        c, s = math.cos(heading), math.sin(heading)
        p = np.asarray(points, np.float64)
        self.path(np.stack([x + p[:, 0] * c - p[:, 1] * s, y + p[:, 0] * s + p[:, 1] * c], 1), width, **kwargs)

    def finish(self) -> np.ndarray:
        """Draw all lines; give the coverage."""
        if not self.parts:
            return self.mask
        cam = self.scene.camera
        edges = np.concatenate([e for e, _, _ in self.parts], 1)
        # The last point of a line and the first one of the next do not make a piece
        keep = np.concatenate([np.append(k, False) for _, k, _ in self.parts])[:-1]
        level = np.concatenate([np.full(len(k) + 1, value, np.float32) for _, k, value in self.parts])[:-1]
        pixels, depth = cam.project(np.concatenate([edges, np.zeros((*edges.shape[:2], 1))], 2))
        near = depth.min(0)
        keep &= np.minimum(near[:-1], near[1:]) > 2
        at = np.flatnonzero(keep)
        quads = np.stack([pixels[0, at], pixels[0, at + 1], pixels[1, at + 1], pixels[1, at]], 1)
        low, high = each_corner(np.minimum, quads), each_corner(np.maximum, quads)
        seen = (low < (cam.width, cam.height)).all(1) & (high > 0).all(1) & (high - low < 3000).all(1)
        quads, level = quads[seen], level[at[seen]]
        # Where a line is thinner than a pixel it covers only a part of those that it touches
        a, b = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
        thin = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / np.maximum(np.hypot(a[:, 0], a[:, 1]), 0.3)
        shade = np.minimum(1, thin / 1.1) * 255 * level
        strong = shade > 6
        corners = np.round(quads[strong] * 16 - 8).astype(np.int32)
        for quad, value in zip(corners, shade[strong].astype(int).tolist(), strict=True):
            cv2.fillConvexPoly(self.mask, quad, value, cv2.LINE_AA, 4)
        return self.mask


def _markings(scene: Scene, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Draw ground markings: (coverage (height, width) uint8, BGR colour, opacity) from the lowest layer up."""
    rubber, yellow, white, red = (_Paint(scene) for _ in range(4))
    wide = scene.side

    def line(u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
        return np.array([scene.world(u0, v0), scene.world(u1, v1)])

    for v in scene.lanes:
        yellow.path(line(-wide, v, wide, v), 0.45)
        for offset in (-3.8, 3.8):
            rubber.path(line(-wide, v + offset, wide, v + offset), 1.5, level=0.5)
    cam = scene.camera
    for x, y, heading, half_l, half_w in scene.stands:
        if not cam.panorama and abs(x) - 70 > max(y, 0) * cam.width / 2 / cam.focal:
            continue  # out of view
        u, v = scene.grid(x, y)
        lane = min(scene.lanes, key=lambda w: abs(w - v))
        yellow.local(x, y, heading, [(-half_l - 6, 0), (half_l - 2, 0)], 0.4)
        yellow.local(x, y, heading, [(half_l - 4, -2.5), (half_l - 4, 2.5)], 0.5)
        relative = heading - scene.turn
        if abs(math.cos(relative)) < 0.4:  # at right angles to the lane: a lead-in that curves off it
            tail_u, tail_v = scene.grid(x - (half_l + 6) * math.cos(heading), y - (half_l + 6) * math.sin(heading))
            radius, toward = min(24.0, abs(lane - tail_v)), math.copysign(1, lane - tail_v)
            t = np.linspace(0, math.pi / 2, 12)
            side = 1 if (round(u / 10) % 2) else -1
            curve = [(tail_u, tail_v)] + [
                (tail_u + side * radius * (1 - math.cos(a)), lane - toward * radius * (1 - math.sin(a))) for a in t
            ]
            curve = np.array([scene.world(*c) for c in curve])
            yellow.path(curve, 0.4, step=2.5)
            rubber.path(curve + 2.2, 1.0, level=0.4)
            rubber.path(curve - 2.2, 1.0, level=0.4)
        box = [
            (half_l + 5, -half_w - 4),
            (half_l + 5, half_w + 4),
            (-half_l - 4, half_w + 4),
            (-half_l - 4, -half_w - 4),
            (half_l + 5, -half_w - 4),
        ]
        red.local(x, y, heading, box, 0.35)
        white.local(x, y, heading, np.array(box) * (1.0, 0.985), 0.16)
        for offset in (-2.6, 2.6):
            rubber.local(x, y, heading, [(-half_l - 6, offset), (0, offset)], 0.7, level=0.45)
    # A vehicle road along the apron: white edges, dashed middle
    places = [scene.lanes[0] - 42, scene.lanes[0] - 70, scene.lanes[0] + 40, scene.apron - 12]
    spans = [(scene.grid(x, y)[1], max(half_l, half_w) + 10) for x, y, _, half_l, half_w in scene.stands]
    free = [v for v in places if v > 5 and all(abs(v - at) > half for at, half in spans)]
    for v in [scene.lanes[0] + 47.5, scene.lanes[1] - 45] if scene.camera.panorama else free[:1]:
        for offset in (-5.2, 5.2):
            white.path(line(-wide, v + offset, wide, v + offset), 0.25)
        white.path(line(-wide, v, wide, v), 0.2, dash=(3.0, 3.0))
    red.path(line(-wide, scene.apron - 3, wide, scene.apron - 3), 0.3)
    for low, high, kind in scene.strips:
        middle, reach = (low + high) / 2, 2200
        if kind == "runway":
            white.path(line(-reach, middle, reach, middle), 1.2, dash=(30.0, 30.0))
            for v in (low + 2, high - 2):
                white.path(line(-reach, v, reach, v), 1.0, step=20)
            rubber.path(line(-reach, middle - 4, reach, middle - 4), 4.0, step=20, level=0.7)
            rubber.path(line(-reach, middle + 4, reach, middle + 4), 4.0, step=20, level=0.7)
        elif kind == "taxiway":
            yellow.path(line(-reach, middle, reach, middle), 0.5, step=15)
            for v in (low + 1.5, high - 1.5):
                yellow.path(line(-reach, v, reach, v), 0.3, step=15)
        else:
            white.path(line(-reach, middle, reach, middle), 0.2, dash=(4.0, 6.0))
    # Tyre marks in curves
    for _ in range(12):
        cx, cy = scene.world(rng.uniform(-0.25, 0.25) * scene.apron * 2, rng.uniform(0.05, 0.9) * scene.apron)
        radius, a0, sweep = rng.uniform(12, 60), rng.uniform(0, 6.3), rng.uniform(0.4, 1.6)
        t = a0 + np.linspace(0, sweep, 16)
        gap = rng.uniform(0.9, 2.4)
        for r in (radius - gap, radius + gap):
            rubber.path(
                np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1), 0.4, step=2.0, level=rng.uniform(0.2, 0.5)
            )
    dark = cv2.GaussianBlur(rubber.finish(), (5, 5), 1.2)
    return [
        (dark, bgr("#3a3a3a"), 0.44),
        (white.finish(), bgr("#e6e6e2"), 0.8),
        (red.finish(), bgr("#b8352c"), 0.75),
        (yellow.finish(), bgr("#e0b21e"), 0.85),
    ]


def _shadows(scene: Scene) -> np.ndarray:
    """Cast every thing's shadow on the ground: darkness (height, width) uint8."""
    cam, sun = scene.camera, scene.light.direction
    mask = np.zeros((cam.height, cam.width), np.uint8)
    soft = scene.light.shadow < 0.25
    for thing in scene.things:
        v = place(thing.mesh, thing.x, thing.y, thing.heading)
        pixels, depth = cam.project(v - sun * (v[:, 2:] / sun[2]))
        solid = thing.mesh.solid
        lit = solid[(normals(v[solid]) @ sun > 0) & (each_corner(np.minimum, depth[solid]) > 2)]
        quads = pixels[lit]
        x = quads[..., 0]
        quads = quads[each_corner(np.maximum, x) - each_corner(np.minimum, x) < 3000]
        for quad in np.round(quads.clip(-20000, 20000) * 16 - 8).astype(np.int32):
            cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, 4)
    return cv2.GaussianBlur(mask, (0, 0), 3.0 if soft else 0.8)


# Things ---------------------------------------------------------------------------------------------------------------


def _lit_colours(scene: Scene, thing: Thing, quads: np.ndarray, normal: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Shade some faces of a thing: (N, 3) BGR, 0 to 255, with haze."""
    light, mesh = scene.light, thing.mesh
    paint = {**models.BASE_PAINT, **thing.paint}
    albedo = np.array([bgr(paint[name]) for name in mesh.materials])[mesh.slots[which]]
    normal = normal / np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-9)[:, None]
    toward = np.array([0, 0, scene.camera.mount], np.float32) - each_corner(np.add, quads) / 4
    distance = np.sqrt(np.einsum("ij,ij->i", toward, toward))[:, None]
    open_sky = 0.84 + 0.16 * normal[:, 2:]  # what faces the ground gets light from there only
    lit = albedo * (light.ambient * open_sky + light.sun * np.maximum(normal @ light.direction, 0)[:, None])
    half = toward / distance + light.direction
    along = np.einsum("ij,ij->i", normal, half) / np.sqrt(np.einsum("ij,ij->i", half, half))
    lit += (255 * mesh.gloss[which] * np.clip(along, 0, 1) ** 24)[:, None] * light.sun
    lit[mesh.glass[which]] += 0.16 * light.haze  # windows mirror the sky a little
    return _mix(lit, light.haze, 1 - np.exp(-distance / light.reach))


def _draw(scene: Scene, canvas: Canvas) -> tuple[list[Thing], np.ndarray, list[Thing]]:
    """Draw all things; give the objects that are seen, their boxes (N, 4) xyxy in pixels, and those hardly seen."""
    drawn = []
    for thing in scene.things:
        vertices = place(thing.mesh, thing.x, thing.y, thing.heading)
        faces, area, samples = canvas.draw(thing.mesh, vertices, partial(_lit_colours, scene, thing))
        drawn.append((thing, faces, area, samples))
    seen, boxes, hidden = [], [], []
    for thing, faces, area, samples in drawn:
        if thing.label < 0:
            continue
        box, count = canvas.visible(faces, area)
        if box is None or count < MIN_VISIBLE * samples or min(box[2:] - box[:2]) < MIN_SIDE:
            hidden.append(thing)
        else:
            seen.append(thing)
            boxes.append(box)
    return seen, np.array(boxes, np.float32).reshape(-1, 4), hidden


def _resolve(scene: Scene, scale: int) -> tuple[Canvas, list[Thing], np.ndarray]:
    """Draw a scene, taking out objects that can hardly be seen: nothing is in a picture without its label."""
    while True:
        canvas = Canvas(scene.camera, scale)
        seen, boxes, hidden = _draw(scene, canvas)
        if not hidden:
            return canvas, seen, boxes
        scene.things = [t for t in scene.things if all(t is not h for h in hidden)]


def label_scene(scene: Scene, scale: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Find a scene's boxes (N, 4) float32 xyxy in pixels and classes (N,) int64 without painting the picture."""
    _, seen, boxes = _resolve(scene, scale)
    return boxes, np.array([t.label for t in seen], np.int64)


def paint_scene(scene: Scene, rng: np.random.Generator, scale: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        scene (Scene): The scene.
        rng (np.random.Generator): Draws the sky, stains and sensor noise.
        scale (int): Samples a pixel along each side.

    Returns:
        image (np.ndarray): (height, width, 3) uint8 BGR.
        boxes (np.ndarray): (N, 4) float32 xyxy in pixels.
        classes (np.ndarray): (N,) int64.
    """
    canvas, seen, boxes = _resolve(scene, scale)
    sky = _sky(scene, rng)
    ground, markings, shadows = Ground(scene, rng), _markings(scene, rng), _shadows(scene)
    picture = np.empty((scene.camera.height, scene.camera.width, 3), np.uint8)
    picture[: len(sky)] = sky
    _paint_ground(picture, scene, ground, markings, shadows)
    canvas.composite(picture)
    return _expose(picture, rng), boxes, np.array([t.label for t in seen], np.int64)


def _paint_ground(
    picture: np.ndarray,
    scene: Scene,
    ground: Ground,
    markings: list[tuple[np.ndarray, np.ndarray, float]],
    shadows: np.ndarray,
) -> None:
    """Paint all that lies below the horizon, in place: a (height, width, 3) uint8 BGR picture."""
    cam, light = scene.camera, scene.light
    sheltered = light.ambient * (1 - (light.shadow if light.shadow < 0.25 else 0.12))
    full = light.ambient + light.sun * max(0.3, float(light.direction[2]))
    first = int(max(0, math.floor(cam.horizon) + 1))
    if first >= cam.height:
        return
    distance = row_distances(scene, first, cam.height)
    haze = 1 - np.exp(np.minimum(distance, WOODS) * np.float32(-1 / light.reach))
    # Far woods
    far = int(np.count_nonzero(distance > 0.97 * WOODS))
    woods = _mix(bgr("#33452b") * full, light.haze, haze[:far])
    picture[first : first + far] = np.clip(woods, 0, 255)[:, None]
    # The ground in full light: three surfaces and the haze before them
    colours = np.concatenate([ground.colours * full[:, None], light.haze[:, None]], 1).astype(np.float32)
    step = max(8, BLOCK // cam.width)  # few rows at a time stay in the processor's cache
    for top in range(first + far, cam.height, step):
        bottom = min(top + step, cam.height)
        veil = haze[top - first : bottom - first]
        layers = ground.rows(top, bottom, 1 - veil)
        layers.append(np.broadcast_to(veil, layers[0].shape))
        block = cv2.transform(cv2.merge(layers), colours)
        flat = block.reshape(-1, 3)
        for mask, colour, opacity in markings:
            at, share = _where(mask[top:bottom], opacity / 255)
            if len(at):
                seen = _mix((colour * full).astype(np.float32), light.haze.astype(np.float32), veil)
                old = flat[at]
                flat[at] = old + (seen[at // cam.width] - old) * share
        at, share = _where(shadows[top:bottom], 1 / 255)
        if len(at):  # what shadows take is the sun's share of the light that the ground sends
            old = flat[at]
            behind = (light.haze * veil).astype(np.float32)[at // cam.width]
            flat[at] = old - (old - behind) * (share * (1 - sheltered / full).astype(np.float32))
        picture[top:bottom] = cv2.convertScaleAbs(block)


def _where(mask: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Find where a uint8 mask is set: flat indices (N,) and the scaled values there (N, 1) float32."""
    flat = mask.reshape(-1)
    at = np.flatnonzero(flat != 0)
    return at, flat[at].astype(np.float32)[:, None] * np.float32(scale)


def _expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a lens and a sensor add: a little blur, vignetting, a tone curve and noise."""
    height, width = picture.shape[:2]
    picture = cv2.GaussianBlur(picture, (3, 3), rng.uniform(0.3, 0.62))
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    strength, edge = np.float32(rng.uniform(1.0, 1.16)), np.float32(rng.uniform(0.02, 0.1))
    down, across = strength * (1 - edge * y * y), np.repeat(strength * edge * x * x, 3)
    gamma = rng.uniform(0.92, 1.08)
    curve = (255 * np.linspace(0, 1, 256) ** gamma).astype(np.float32)
    one, three = _grain()
    tall, wide = len(one), one.shape[1]
    at = int(rng.integers(wide - width - 512))
    part = slice(at, at + width + 512)
    noise = one[:, part] * np.float32(rng.uniform(1.2, 3.0)) + three[:, part] * np.float32(rng.uniform(0.6, 1.8))
    image = np.empty_like(picture)
    step = min(tall, max(8, BLOCK // width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        block = cv2.LUT(picture[rows], curve)
        block *= (down[rows] - across).reshape(block.shape)
        # Noise of a few rows, shifted anew for each further set of rows
        row, column = int(rng.integers(tall - step + 1)), int(rng.integers(512))
        block += noise[row : row + len(block), column : column + width]
        image[rows] = cv2.convertScaleAbs(np.maximum(block, 0, out=block))
    return image
