"""A z-buffer that rasterises meshes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from small_object.scenes.camera import NEAR, Camera
from small_object.scenes.mesh import Mesh, quad_normals, reduce_corners

TILE = 64  # pixels; side of the blocks that are composited at a time
CHUNK = 65536  # samples that small faces are tested on at a time


class Drawn(NamedTuple):
    """Where a mesh is in the canvas."""

    faces: tuple[int, int]  # range of the canvas's face numbers that stand for it
    area: tuple[int, int, int, int]  # x0, y0, x1, y1 in samples
    samples: float  # how many it would cover if nothing stood before it or cut it off


class Canvas:
    """A z-buffer at `scale` times the image's size, which keeps for each sample the face that is seen there."""

    def __init__(self, camera: Camera, scale: int) -> None:
        self.camera, self.scale = camera, scale
        self.inverse_depth = np.zeros((camera.height * scale, camera.width * scale), np.float32)
        self.face = np.zeros(self.inverse_depth.shape, np.int32)  # 0: nothing, else 1 + index of the face
        self.colours = [np.zeros((1, 4), np.uint8)]  # BGRA of the faces
        self.num_faces = 1

    def draw(
        self, mesh: Mesh, vertices: np.ndarray, shade: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    ) -> Drawn:
        """Draw a mesh with its vertices in the world (V, 3).

        `shade` returns the lit colours (N, 3), BGR, 0 to 255, from the quads (N, 4, 3) that face the camera, their
        normals (N, 3) and their indices in the mesh (N,).
        """
        start = self.num_faces
        nothing = Drawn((start, start), (0, 0, 0, 0), 0.0)
        rows, cols = self.face.shape
        pixels, depth = self.camera.project(vertices)
        quads = vertices[mesh.faces]
        normal = quad_normals(quads)
        eye = np.array([0, 0, self.camera.mount], np.float32)
        towards = np.einsum("ij,ij->i", reduce_corners(np.add, quads) - 4 * eye, normal)
        which = np.flatnonzero((towards < 0) & (reduce_corners(np.minimum, depth[mesh.faces]) > NEAR))
        if not len(which):
            return nothing
        faces = mesh.faces[which]
        p = (pixels * self.scale - 0.5).astype(np.float32)[faces]  # (n, 4, 2), the centre of sample i at i
        least, most = reduce_corners(np.minimum, p), reduce_corners(np.maximum, p)
        low, high = np.floor(least.min(0)).astype(int), np.ceil(most.max(0)).astype(int) + 1
        x0, y0, x1, y1 = max(low[0], 0), max(low[1], 0), min(high[0], cols), min(high[1], rows)
        if x0 >= x1 or y0 >= y1:
            return nothing
        colours = np.full((len(which), 4), 255, np.uint8)
        colours[:, :3] = np.clip(shade(quads[which], normal[which], which), 0, 255)
        self.colours.append(colours)
        self.num_faces += len(which)
        # 1/depth is a plane over the image: solve it for each face from its diagonals and its mean
        w = (1 / depth).astype(np.float32)[faces]
        d1, d2, w1, w2 = p[:, 2] - p[:, 0], p[:, 3] - p[:, 1], w[:, 2] - w[:, 0], w[:, 3] - w[:, 1]
        det = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
        inverse = np.where(np.abs(det) < 2.0, 0, 1 / np.where(det == 0, 1, det))
        gx, gy = (w1 * d2[:, 1] - w2 * d1[:, 1]) * inverse, (w2 * d1[:, 0] - w1 * d2[:, 0]) * inverse
        middle = reduce_corners(np.add, p) / 4
        plane = np.stack([gx, gy, w.mean(1) - gx * middle[:, 0] - gy * middle[:, 1]], 1)
        plane = (plane * np.where(mesh.decal[which], 1.0006, 1.0)[:, None]).astype(np.float32)
        # The samples that a face may cover, and those of them that lie in the image
        bounds = np.floor(np.concatenate([least + 0.5, most + 1.5], 1)).astype(np.int32)
        size = (bounds[:, 2:] - bounds[:, :2]).max(1)
        bounds = np.clip(bounds, (x0, y0, x0, y0), (x1, y1, x1, y1))
        size[(bounds[:, :2] >= bounds[:, 2:]).any(1)] = 0  # out of view
        covered = np.zeros((y1 - y0, x1 - x0), bool)
        for smaller, side in ((0, 4), (4, 8), (8, 16), (16, 32)):
            group = np.flatnonzero((size > smaller) & (size <= side))
            for i in range(0, len(group), CHUNK // side**2):
                part = group[i : i + CHUNK // side**2]
                self._draw_small(side, p[part], plane[part], bounds[part], part + start, covered, (x0, y0))
        large = np.flatnonzero(size > 32)
        self._draw_large(p[large], plane[large], bounds[large], large + start, covered, (x0, y0))
        whole = float((high - low).prod()) / max(1.0, (x1 - x0) * (y1 - y0))
        return Drawn((start, self.num_faces), (x0, y0, x1, y1), np.count_nonzero(covered) * whole)

    def _draw_small(
        self, side: int, p: np.ndarray, plane: np.ndarray, bounds: np.ndarray, ids: np.ndarray, covered: np.ndarray,
        origin: tuple[int, int],
    ) -> None:  # fmt: skip
        """Draw faces (n, 4, 2) at most `side` samples wide and tall, all at once."""
        # Along each edge (nx, ny) points inward; a sample counts from half a sample outside on, as it does in OpenCV
        edge, d1, d2 = np.roll(p, -1, 1) - p, p[:, 2] - p[:, 0], p[:, 3] - p[:, 1]
        sign = np.where(d1[:, 0] * d2[:, 1] < d1[:, 1] * d2[:, 0], np.float32(-1), np.float32(1))[:, None]
        nx, ny = -edge[..., 1] * sign, edge[..., 0] * sign
        shift = p - bounds[:, None, :2].astype(np.float32)
        c = 0.5 * np.maximum(np.abs(nx), np.abs(ny)) - nx * shift[..., 0] - ny * shift[..., 1]
        steps = np.arange(side, dtype=np.float32)
        across, down = nx[..., None] * steps, ny[..., None] * steps + c[..., None]  # (n, 4, side)
        lowest = across[:, 0, None, :] + down[:, 0, :, None]  # (n, side, side)
        for i in (1, 2, 3):
            np.minimum(lowest, across[:, i, None, :] + down[:, i, :, None], out=lowest)
        width, height = (bounds[:, 2:] - bounds[:, :2]).T[..., None]
        hit = (lowest >= 0) & (steps < width)[:, None, :] & (steps < height)[:, :, None]
        index, row, col = np.unravel_index(np.flatnonzero(hit), hit.shape)
        x, y = col + bounds[index, 0], row + bounds[index, 1]
        value = plane[index, 0] * x.astype(np.float32) + (plane[index, 1] * y.astype(np.float32) + plane[index, 2])
        covered[y - origin[1], x - origin[0]] = True
        inverse_depth, face, at = self.inverse_depth.ravel(), self.face.ravel(), y * self.face.shape[1] + x
        np.maximum.at(inverse_depth, at, value)
        wins = inverse_depth[at] == value
        face[at[wins]] = ids[index[wins]]

    def _draw_large(
        self, p: np.ndarray, plane: np.ndarray, bounds: np.ndarray, ids: np.ndarray, covered: np.ndarray,
        origin: tuple[int, int],
    ) -> None:  # fmt: skip
        """Draw faces (n, 4, 2) one by one."""
        (x0, y0), (rows, cols) = origin, self.face.shape
        corners = np.round((np.clip(p, -20000, 20000) - np.array(origin, np.float32)) * 16).astype(np.int32)
        xs, ys = np.arange(cols, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, None]
        stencil = np.zeros(covered.shape, np.int32)
        for quad, face, (gx, gy, base), (a, b, c, d) in zip(corners, ids.tolist(), plane, bounds.tolist(), strict=True):
            cv2.fillConvexPoly(stencil, quad, face, cv2.LINE_8, 4)
            value = xs[a:c] * gx + (ys[b:d] * gy + base)
            wins = (stencil[b - y0 : d - y0, a - x0 : c - x0] == face) & (value > self.inverse_depth[b:d, a:c])
            np.copyto(self.inverse_depth[b:d, a:c], value, where=wins)
            np.copyto(self.face[b:d, a:c], face, where=wins)
        covered |= stencil > 0

    def visible(self, drawn: Drawn) -> tuple[np.ndarray, int]:
        """Return the box (4,) xyxy, in image pixels, of what is seen of a mesh and the number of its samples."""
        (first, last), (x0, y0, x1, y1) = drawn.faces, drawn.area
        if first == last:
            return np.zeros(4, np.float32), 0
        seen = cv2.inRange(self.face[y0:y1, x0:x1], first, last - 1)
        x, y, width, height = cv2.boundingRect(seen)
        box = np.array([x0 + x, y0 + y, x0 + x + width, y0 + y + height], np.float32) / self.scale
        return box, cv2.countNonZero(seen)

    def composite(self, image: np.ndarray) -> None:
        """Lay what was drawn over a BGR uint8 image in place, each pixel the mean of its samples."""
        colours, s = np.concatenate(self.colours).view(np.uint32).ravel(), self.scale
        height, width = image.shape[:2]
        for y, x in np.ndindex(-(-height // TILE), -(-width // TILE)):
            tile = image[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            face = self.face[y * TILE * s : (y + 1) * TILE * s, x * TILE * s : (x + 1) * TILE * s]
            if not face.any():
                continue
            samples = colours[face].view(np.uint8).reshape(*face.shape, 4)
            mean = cv2.resize(samples, tile.shape[1::-1], interpolation=cv2.INTER_AREA)
            background = cv2.multiply(tile, cv2.merge([cv2.bitwise_not(mean[..., 3])] * 3), scale=1 / 255)
            tile[:] = cv2.add(background, cv2.cvtColor(mean, cv2.COLOR_BGRA2BGR))
