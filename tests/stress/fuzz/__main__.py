"""Counts how random inputs end: python -m tests.stress.fuzz --help."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import hypothesis
import torch
import ultralytics
from ultralytics.utils import LOGGER

from benchmarks.common import markdown_table, module_command, write_text
from tests.stress.fuzz import KINDS, Counts, count
from tests.stress.fuzz.values import ERROR, RESULT


def table(found: dict[str, Counts], command: str) -> str:
    """Return the counts as a table in Markdown."""
    versions = f"Ultralytics {ultralytics.__version__}, torch {torch.__version__}, Hypothesis {hypothesis.__version__}"
    rows = []
    for name, counts in found.items():
        numbers = (counts.ended.total(), *(counts.ended[end] for end in (RESULT, ERROR, "unhandled")))
        rows.append([name, KINDS[name].subject, *map(str, numbers), f"{counts.slowest:.1f} s"])
    header = ["kind", "inputs", "count", RESULT, ERROR, "unhandled", "slowest"]
    return "\n".join([f"Written by `{command}` with {versions}.", "", *markdown_table(header, rows), ""])


def main(argv: list[str] | None = None) -> int:
    """Count the inputs of each kind; return 1 if one ended unhandled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of inputs, default all")
    parser.add_argument("--examples", type=int, default=2000, help="inputs of each kind, default 2000")
    parser.add_argument("--seconds", type=float, default=math.inf, help="maximum seconds for a kind, default no limit")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args(argv)
    if args.examples < 1:
        parser.error("--examples must be at least 1")
    torch.set_num_threads(1)
    found = {}
    for name in args.kinds:
        found[name] = count(name, args.examples, args.seed, args.seconds)
        LOGGER.info(f"{name}: {dict(found[name].ended)}")
        for place, (case, trace) in found[name].unhandled.items():
            LOGGER.error(f"{name}: {place}\n    {case!r:.2000}\n{trace}")
    text = table(found, module_command("tests.stress.fuzz", sys.argv[1:] if argv is None else argv))
    LOGGER.info(text)
    if args.out:
        write_text(args.out, text)
    return int(any(counts.unhandled for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())
