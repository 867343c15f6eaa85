"""Transfers the weights of one detection model to another architecture, row by row.

Upstream matches tensors by name, and a name starts with the number of a row: after an inserted or removed row, nothing
fits. Here a row takes the weights of the row in the same role, see `match_rows`.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from ultralytics.utils import LOGGER

from small_object.errors import UserError, explain, one_line

PROBE = 256  # side in pixels of the image that finds the stride of each row; a multiple of any stride in use
ENOUGH = Fraction(1, 3)  # fraction of the tensors below which weights hardly help
LEVELS = re.compile(r"(one2one_)?cv[2-5]")  # branches of a head that have a module for each level
FAMILIES = {"C3k2": "yolo11", "C2f": "yolov8"}  # stock models by the block that identifies them

Tensors = dict[str, torch.Tensor]


@dataclass
class Row:
    """A row of a detection model, and the weights that it takes from another model.

    Attributes:
        index: Number of the row.
        module: Name of its module.
        part: `backbone`, `neck` or `head`.
        stride: Stride of its output; 0 for the head.
        state: Its own tensors.
        source: Number of the row that the weights come from, or None.
        taken: The tensors taken, by their names in the row.
        reason: Why not all are taken.
        by_name: Whether upstream, which matches by number and name, takes the same tensors.
    """

    index: int
    module: str
    part: str
    stride: float
    state: Tensors
    source: int | None = None
    taken: Tensors = field(default_factory=dict)
    reason: str = ""
    by_name: bool = True

    @property
    def role(self) -> tuple[str, float]:
        """What rows must share to exchange weights."""
        return self.part, self.stride


@torch.no_grad()
def transfer(source: Any, target: Any, verbose: bool = True) -> bool:
    """Load the weights of the model `source` into `target`, which has other rows; leave equal rows to upstream.

    Class scores are matched by class names, as in upstream. With `verbose`, log what was taken, with a warning if it is
    little.

    Returns:
        Whether the weights were loaded.
    """
    if not (is_transferable(source) and is_transferable(target)):
        if verbose and is_transferable(target) and not hasattr(getattr(source, "model", [None])[-1], "cv2"):
            kind = type(source).__name__
            LOGGER.warning(f"the weights are of a {kind}, which has no detection head: rows are matched by number only")
        return False
    rows = plan_transfer(source.float(), target)
    if verbose and (warning := find_warning(rows, source, target)):
        LOGGER.warning(warning)
    if all(row.by_name for row in rows):
        return False
    head = rows[-1]
    renamed = rename_levels(source.model[-1], source.model[-1].state_dict(), target.model[-1])
    waiting = {f"model.{head.index}.{name}": x for name, x in renamed.items()}
    target._remap_cls_by_names(waiting, source, verbose)  # removes those that it loads
    head.taken |= {name: head.state[name] for name in renamed if f"model.{head.index}.{name}" not in waiting}
    state = {f"model.{row.index}.{name}": x for row in rows for name, x in row.taken.items()}
    target.load_state_dict(state, strict=False)
    target.pt_path = getattr(source, "pt_path", None)
    if verbose:
        LOGGER.info(f"{build_table(rows)}\nWeights taken by role: {summarize(rows)}")
    return True


def plan_transfer(source: Any, target: Any) -> list[Row]:
    """Return the rows of a model with the weights that each takes from another model; both models stay unchanged.

    Args:
        source: Detection model with the weights, built from a YAML, not fused.
        target: Detection model that receives them.
    """
    theirs, ours = read_rows(source), read_rows(target)
    _adapt_channels(theirs[0].state, ours[0].state)
    gains = [
        [
            sum(tensor.numel() for tensor in matching_tensors(other.state, row.state).values())
            if row.role == other.role
            else 0
            for other in theirs[:-1]
        ]
        for row in ours[:-1]
    ]
    for i, j in match_rows(gains).items():
        ours[i].source, ours[i].taken = j, matching_tensors(theirs[j].state, ours[i].state)
    head = ours[-1]
    head.source = theirs[-1].index
    head.taken = matching_tensors(rename_levels(source.model[-1], theirs[-1].state, target.model[-1]), head.state)
    for row in ours:
        if row.source is not None:
            state = theirs[row.source].state
            row.by_name = row.source == row.index and all(state.get(name) is x for name, x in row.taken.items())
        if not row.taken and row.state:
            is_there = any(other.state.keys() >= row.state.keys() for other in theirs if other.role == row.role)
            row.reason = "other shapes there" if is_there else "no such tensors there"
        elif len(row.taken) < len(row.state):
            row.reason = "the others differ in shape"
    return ours


def _adapt_channels(theirs: Tensors, ours: Tensors) -> None:
    """Fit the first convolution to another number of image channels, as upstream does: a grey image gets the sum."""
    new, old = ours.get("conv.weight"), theirs.get("conv.weight")
    if new is None or old is None or new.shape[1] == old.shape[1]:
        return
    if (len(new), new.shape[2:]) == (len(old), old.shape[2:]):
        channels = min(new.shape[1], old.shape[1])
        theirs["conv.weight"] = new.clone()
        theirs["conv.weight"][:, :channels] = old.sum(1, keepdim=True) if channels == 1 else old[:, :channels]


def read_rows(model: Any) -> list[Row]:
    """Return the rows of a detection model, which take no weights yet."""
    num_backbone, last, shapes = len(model.yaml["backbone"]), len(model.model) - 1, find_shapes(model)
    rows = []
    for i, layer in enumerate(model.model):
        part = "head" if i == last else "backbone" if i < num_backbone else "neck"
        stride = PROBE / shapes[i][-1] if i in shapes else 0.0
        rows.append(Row(i, type(layer).__name__, part, stride, layer.state_dict()))
    return rows


@torch.no_grad()
def find_shapes(model: Any) -> dict[int, torch.Size]:
    """Return the shape (1, C, H, W) of each row's output for an image of `PROBE` pixels, by row; none for the head."""
    channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
    shapes: dict[int, torch.Size] = {}

    def note(layer: Any, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            shapes[layer.i] = output.shape

    hooks = [layer.register_forward_hook(note) for layer in model.model]
    training = model.training
    try:
        model.eval()(torch.zeros(1, channels, PROBE, PROBE, device=next(model.parameters()).device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return shapes


def match_rows(gains: Sequence[Sequence[int]]) -> dict[int, int]:
    """Pair rows of a target with rows of a source, in order, so that the sum of the gains is maximal.

    Args:
        gains: `gains[i][j]` is the gain of pairing row i of the target with row j of the source; 0: no pair.

    Returns:
        The row of the source for each paired row of the target.

    Example:
        >>> match_rows([[4, 0, 0], [0, 0, 0], [0, 4, 0], [0, 0, 9]])  # a row was inserted
        {0: 0, 2: 1, 3: 2}
    """

    @functools.cache
    def best(i: int, j: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the maximal gain of the rows from i and j on, and its pairs."""
        if i == len(gains) or j == len(gains[0]):
            return 0, ()
        found = [best(i + 1, j), best(i, j + 1)]
        if gains[i][j]:
            gain, pairs = best(i + 1, j + 1)
            found.insert(0, (gains[i][j] + gain, ((i, j), *pairs)))
        return max(found, key=lambda each: each[0])

    return dict(best(0, 0)[1])


def matching_tensors(source: Tensors, target: Tensors) -> Tensors:
    """Return the tensors in the state of a module that fit another module by name and shape.

    A convolution and its BatchNorm are taken together or not at all, since one is useless without the other.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in target:
        path = name.split(".")[:-1]
        groups[".".join(path[:-1] if path[-1:] in (["conv"], ["bn"]) else path)].append(name)
    fits = {name for name in target if name in source and source[name].shape == target[name].shape}
    return {name: source[name] for names in groups.values() if fits.issuperset(names) for name in names}


def rename_levels(source: Any, state: Tensors, target: Any) -> Tensors:
    """Return the tensors of a detection head by their names in another head, with levels matched by stride.

    Tensors of levels that the other head lacks are left out.

    Args:
        source: Head with the weights: upstream's `Detect` or a subclass.
        state: Its tensors.
        target: Head that receives them.
    """
    strides = source.stride.tolist()
    levels = {stride: level for level, stride in enumerate(target.stride.tolist())}
    renamed: Tensors = {}
    for name, tensor in state.items():
        branch, *rest = name.split(".")
        if not (LEVELS.fullmatch(branch) and rest[0].isdigit()):
            renamed[name] = tensor
        elif (level := levels.get(strides[int(rest[0])])) is not None:
            renamed[".".join([branch, str(level), *rest[1:]])] = tensor
    return renamed


def is_transferable(model: Any) -> bool:
    """Return whether a model's rows can be matched: it is built from a YAML, has a detection head and isn't fused."""
    head = getattr(model, "model", [None])[-1]
    has_levels = all(hasattr(head, name) for name in ("stride", "cv2", "cv3"))
    is_open = hasattr(model, "set_classes")  # its classes are texts that its forward pass needs
    return has_levels and not is_open and "backbone" in getattr(model, "yaml", {}) and not model.is_fused()


def summarize(rows: Sequence[Row]) -> str:
    """Return the percentage of the tensors taken, by part: `backbone 100 %, neck 0 %, head 31 %`."""
    shares = []
    for part in ("backbone", "neck", "head"):
        here = [row for row in rows if row.part == part]
        total = sum(len(row.state) for row in here)
        shares.append(f"{part} {100 * sum(len(row.taken) for row in here) / total:.0f} %" if total else f"no {part}")
    return ", ".join(shares)


def find_warning(rows: Sequence[Row], source: Any, target: Any) -> str:
    """Return which other weights would fit better, or an empty string."""
    theirs, ours = (str(model.yaml.get("scale") or "") for model in (source, target))
    if theirs and ours and theirs != ours:
        return f"the weights are of scale {theirs}, this model is of scale {ours}: use weights of scale {ours}"
    share = Fraction(sum(len(row.taken) for row in rows), sum(len(row.state) for row in rows))
    if share >= ENOUGH:
        return ""
    modules = {row.module for row in rows}
    fits = [f"{family}{ours}.pt" for block, family in FAMILIES.items() if block in modules]
    better = f"; {fits[0]} may fit better" if fits else ""
    return f"only {100 * float(share):.0f} % of the tensors fit, which is close to training from scratch{better}"


def build_table(rows: Sequence[Row]) -> str:
    """Return a table of the rows with weights: row, module, source, tensors taken of all, and why not all."""
    lines = [f"{'row':>4}  {'module':<18}{'from row':>9}{'tensors':>12}"]
    for row in rows:
        if row.state:
            source = "-" if row.source is None or not row.taken else str(row.source)
            count = f"{len(row.taken)}/{len(row.state)}"
            lines.append(f"{row.index:>4}  {row.module:<18}{source:>9}{count:>12}  {row.reason}".rstrip())
    return "\n".join(lines)


def describe(weights: str, yaml: str) -> str:
    """Return the table, the percentages by part and the warning of a transfer from a weights file to a new model.

    Raises:
        UserError: If a file can't be used.
    """
    from ultralytics import YOLO

    if weights.endswith((".yaml", ".yml")):
        raise UserError(f"{weights}: has no weights; give a .pt file first, then the model that takes its weights")
    models = []
    for file in (weights, yaml):
        try:
            models.append(YOLO(file, task="detect").model)
        except Exception as error:
            why = explain(error) or one_line(error) or type(error).__name__
            raise UserError(why if file.rpartition("/")[2] in why else f"{file}: {why}") from error
        if not is_transferable(models[-1]):
            raise UserError(f"{file}: holds no detection model built from a YAML")
    rows = plan_transfer(*models)
    warning = find_warning(rows, *models)
    return "\n".join([build_table(rows), summarize(rows), *([f"WARNING {warning}"] if warning else [])])
