"""Weights of one model in another of different rows."""

import itertools
import random

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from benchmarks.common import ROOT
from small_object.cli import main
from small_object.transfer import match_rows, plan_transfer, summarize, transfer

BACKBONE = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "C3k2", [16, False, 0.5]],
    [-1, 1, "Conv", [24, 3, 2]],
    [-1, 1, "C3k2", [24, False, 0.5]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "SPPF", [32, 5]],
]
NECK = [
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 4], 1, "Concat", [1]],
    [-1, 1, "C3k2", [24, False]],
]
STOCK = BACKBONE, [*NECK, [[9, 6], 1, "Detect", ["nc"]]]
INSERTED = (
    [*BACKBONE[:3], [-1, 1, "Conv", [16, 1, 1]], *BACKBONE[3:]],
    [NECK[0], [[-1, 5], 1, "Concat", [1]], NECK[2], [[10, 7], 1, "Detect", ["nc"]]],
)
NO_P5 = BACKBONE[:5], [[-1, 1, "C3k2", [24, False]], [[2, 5], 1, "Detect", ["nc"]]]
P2_HEAD = (
    BACKBONE,
    [*NECK, [-1, 1, "nn.Upsample", [None, 2, "nearest"]], [[-1, 2], 1, "Concat", [1]], [-1, 1, "C3k2", [16, False]],
     [[12, 9, 6], 1, "Detect", ["nc"]]],
)  # fmt: skip


def build(rows, nc=2, ch=3, seed=0, **keys):
    """Return a model of some rows with random weights and statistics."""
    torch.manual_seed(seed)
    model = DetectionModel({"nc": nc, "backbone": rows[0], "head": rows[1], **keys}, ch=ch, verbose=False).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) * 0.2 + 0.05)
    return model


@torch.no_grad()
def outputs(model, image):
    """Return the output of each row but the head."""
    found = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: found.update({layer.i: output}))
        for layer in model.model[:-1]
    ]
    model(image)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        (INSERTED, {0: 0, 1: 1, 2: 2}),  # behind the inserted row the weights are taken, but their inputs differ
        (NO_P5, {i: i for i in range(5)}),
        (P2_HEAD, {i: i for i in range(10)}),
    ],
    ids=["inserted row", "no P5", "P2 head"],
)
def test_rows_taken_compute_what_they_did(rows, same):
    source, target = build(STOCK), build(rows, seed=1)
    theirs = source.state_dict()
    plan = plan_transfer(source, target)
    target.load(source, verbose=False)
    image = torch.rand(1, 3, 64, 64)
    ours, stock = outputs(target, image), outputs(source, image)
    for i, j in same.items():
        assert torch.equal(ours[i], stock[j]), i
    state = target.state_dict()
    for row in plan:
        for name in row.taken if row.part != "head" else ():
            assert torch.equal(state[f"model.{row.index}.{name}"], theirs[f"model.{row.source}.{name}"]), name
    assert all(len(row.taken) == len(row.state) for row in plan if row.part == "backbone" and row.source is not None)


def test_inserted_row_moves_the_others():
    plan = plan_transfer(build(STOCK), build(INSERTED))
    assert {row.index: row.source for row in plan} == {
        0: 0, 1: 1, 2: 2, 3: None, 4: 3, 5: 4, 6: 5, 7: 6, 8: None, 9: None, 10: 9, 11: 10
    }  # fmt: skip
    assert summarize(plan) == "backbone 93 %, neck 100 %, head 100 %"  # the inserted Conv has 6 of 90 tensors


def test_levels_of_the_head_go_by_stride_and_classes_by_name():
    source, target = build(STOCK, nc=3), build(P2_HEAD, nc=2, seed=1)
    source.names, target.names = {0: "bus", 1: "car", 2: "cyclist"}, {0: "cyclist", 1: "bus"}
    before = target.state_dict()["model.13.cv3.2.2.bias"].clone()
    target.load(source, verbose=False)
    new, old = target.state_dict(), source.state_dict()
    for level, stock in ((1, 0), (2, 1)):  # strides 8 and 16; the new level is of stride 4
        assert torch.equal(new[f"model.13.cv3.{level}.0.0.conv.weight"], old[f"model.10.cv3.{stock}.0.0.conv.weight"])
        assert torch.equal(new[f"model.13.cv3.{level}.2.bias"], old[f"model.10.cv3.{stock}.2.bias"][[2, 0]])
    assert not torch.equal(before, new["model.13.cv3.2.2.bias"])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_number_of_channels(channels):
    source, target = build(STOCK), build(P2_HEAD, ch=channels, seed=1)
    own = target.model[0].conv.weight.detach().clone()
    target.load(source, verbose=False)
    new, old = target.model[0].conv.weight, source.model[0].conv.weight
    expected = old.sum(1, keepdim=True) if channels == 1 else torch.cat((old, own[:, 3:]), 1)
    assert torch.equal(new, expected)
    assert torch.equal(target.model[0].bn.running_var, source.model[0].bn.running_var)


def test_same_rows_are_left_to_upstream():
    source, target = build(STOCK), build(STOCK, seed=1)
    assert not transfer(source, target) and transfer(source, build(INSERTED))
    target.load(source)
    for ours, theirs in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_matching_is_the_best_of_all_in_order():
    rng = random.Random(0)
    for _ in range(40):
        num, width = rng.randint(1, 5), rng.randint(1, 5)
        gains = [[rng.choice([0, 0, rng.randint(1, 9)]) for _ in range(width)] for _ in range(num)]
        best = max(
            sum(gains[i][j] for i, j in zip(rows, columns, strict=True))
            for size in range(min(num, width) + 1)
            for rows in itertools.combinations(range(num), size)
            for columns in itertools.combinations(range(width), size)
            if all(gains[i][j] for i, j in zip(rows, columns, strict=True))
        )
        pairs = match_rows(gains)
        assert sum(gains[i][j] for i, j in pairs.items()) == best
        assert list(pairs) == sorted(pairs) and list(pairs.values()) == sorted(set(pairs.values()))


def test_command_shows_the_transfer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    YOLO("yolo11n.yaml").save("n.pt")
    assert main(["transfer", "n.pt", str(ROOT / "ultralytics/cfg/models/11/yolo11n.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("backbone 100 %, neck")
    assert "   0  Conv                      0         6/6" in lines
    assert main(["transfer", "n.pt", str(ROOT / "ultralytics/cfg/models/11/yolo11s.yaml")]) == 0
    assert "the weights are of scale n, this model is of scale s" in capsys.readouterr().out.splitlines()[-1]
    assert main(["transfer", "n.pt", "yolov8n-cls.yaml"]) == 1
    assert capsys.readouterr().err == "small-object: yolov8n-cls.yaml: holds no detection model built from a YAML\n"
    assert main(["transfer", "yolo11n.yaml", "n.pt"]) == 1
    assert "yolo11n.yaml: has no weights" in capsys.readouterr().err
    assert main(["transfer", "n.pt", "none.yaml"]) == 1
    assert capsys.readouterr().err == "small-object: 'none.yaml' does not exist\n"
