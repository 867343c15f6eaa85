"""Draws boxes, arrows and texts for docs/pictures, and converts drawings to SVG."""

import io
from collections.abc import Callable
from fractions import Fraction

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from torch import nn

STYLE = {
    "svg.hashsalt": "docs",  # ids are the same each time
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "path.simplify": False,
}
TIMES = "\N{MULTIPLICATION SIGN}"
INK, FAINT = "#22303c", "#8695a3"
FILL = {  # by what a box does
    "data": "#f1f3f5",
    "conv": "#d5e5f7",
    "new": "#fbdfc4",
    "gate": "#dcefd8",
    "op": "#ffffff",
}
BLUE, ORANGE, GREEN, PURPLE = "#2f6db3", "#d9731a", "#3f8f43", "#7a52a8"
TILE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)

Point = tuple[float, float]


class Box:
    """A labelled box in a drawing, with the points where arrows end.

    Args:
        ax: Axes in units of drawing, y downward.
        x: Centre.
        y: Centre.
        text: Label of one or more lines.
        kind: A key of `FILL`.
        width: Width.
        height: Height; None: as high as its lines.
        size: Font size in points.
    """

    def __init__(
        self, ax: Axes, x: float, y: float, text: str, kind: str = "conv", width: float = 2.6,
        height: float | None = None, size: float = 9,
    ) -> None:  # fmt: skip
        height = height or 0.32 + 0.34 * (text.count("\n") + 1)
        self.x, self.y, self.width, self.height = x, y, width, height
        look = {"fc": FILL[kind], "ec": INK, "lw": 0.9, "zorder": 3}
        if kind == "op" and width == height:
            ax.add_patch(Circle((x, y), width / 2, **look))
        else:
            corners = f"round,pad=0,rounding_size={height / 2 if kind == 'op' else 0.12}"
            ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=corners, **look))
        ax.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, zorder=4, linespacing=1.25)

    @property
    def top(self) -> Point:
        """Middle of the upper side."""
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> Point:
        """Middle of the lower side."""
        return self.x, self.y + self.height / 2

    @property
    def left(self) -> Point:
        """Middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        """Middle of the right side."""
        return self.x + self.width / 2, self.y


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure and axes without a frame, `width` x `height` units of half an inch, y downward."""
    figure = Figure((width / 2, height / 2), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return figure, ax


def arrow(ax: Axes, *points: Point) -> None:
    """Draw a line through points with a head at its end."""
    line = {"color": INK, "lw": 1.1, "ls": "-"}
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), **line, zorder=2, solid_joinstyle="round")
    style = {"arrowstyle": "-|>,head_width=0.22,head_length=0.42", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}
    ax.annotate("", points[-1], points[-2], arrowprops=style | line, zorder=2)


def note(ax: Axes, x: float, y: float, text: str, **options: object) -> None:
    """Write an explanation."""
    ax.text(x, y, text, **({"ha": "left", "va": "center", "fontsize": 8.5, "color": INK, "linespacing": 1.3} | options))


def title(ax: Axes, x: float, y: float, text: str) -> None:
    """Write the name of a part of a drawing."""
    ax.text(x, y, text, ha="left", va="center", fontsize=11, color=INK, fontweight="bold")


def share(channels: int, of: int) -> str:
    """Return channels as a fraction of `c`, e.g. `c/2`."""
    ratio = Fraction(channels, of)
    top = "c" if ratio.numerator == 1 else f"{ratio.numerator}c"
    return top if ratio.denominator == 1 else f"{top}/{ratio.denominator}"


def describe(module: nn.Module, of: int | None = None, dilation: bool = False) -> str:
    """Describe a convolution by its attributes: channels as fractions of `of`, optionally the dilation."""
    conv = getattr(module, "conv", None) or getattr(module, "conv_transpose", module)
    lines = [f"{conv.kernel_size[0]}x{conv.kernel_size[1]} conv"]
    if isinstance(conv, nn.ConvTranspose2d):
        lines = [f"{conv.kernel_size[0]}x{conv.kernel_size[1]} transposed", f"conv, stride {conv.stride[0]}"]
    elif conv.stride[0] > 1:
        lines[0] += f", stride {conv.stride[0]}"
    if dilation:
        lines.append(f"dilation {conv.dilation[0]}")
    if conv.groups > 1:
        lines.append(f"{conv.groups} groups")
    if of:
        lines.append(f"{share(conv.in_channels, of)} → {share(conv.out_channels, of)}")
    return "\n".join(lines)


def svg(draw: Callable[[], Figure]) -> str:
    """Return a drawing as SVG text, which is the same each time."""
    with mpl.rc_context(STYLE):
        out = io.StringIO()
        draw().savefig(out, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
