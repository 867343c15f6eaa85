"""Odd values, mistakes made with them, and the ways in which an input may end."""

import functools
import math
import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

RESULT, ERROR = "result", "clear error"


def clear(error: BaseException | str, *names: str) -> str:
    """Return that an input ended with a clear error, after a look at it: one line of text with some names in it."""
    text = str(error)
    assert text.strip() and len(text.splitlines()) == 1, f"not one line: {text!r}"
    for name in names:
        assert name in text, f"does not name {name}: {text}"
    return ERROR


# No number between 65 and 10**9: a model of such width takes much memory and time, and does no other harm.
whole = st.one_of(st.integers(-3, 9), st.sampled_from([-(10**9), 16, 24, 64, 10**9, 10**20, 10**400]))
real = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 64.0, 1e308, 5e-324, -1.5])
words = st.one_of(
    st.sampled_from(["", " ", "nc", "d", "ch", "auto", "AUTO", "nearest", "None", "0.5", "1e3", "nan", "true", "a\nb"]),
    st.sampled_from(
        ["\u202e1", "é", "\uff11", "日本", "\x00", "\U0001f600", "x" * 300, "../..", "[1", "{", "'", "%s", "{0}"]
    ),
    st.text(max_size=6),
)
plain = st.one_of(st.none(), st.booleans(), whole, real, words)
odd = st.one_of(
    plain, plain, st.lists(plain, max_size=3), st.lists(st.lists(plain, max_size=2), max_size=2),
    st.dictionaries(words, plain, max_size=2),
)  # fmt: skip


def paths(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Give the path, keys and indices, of each part of nested lists and dictionaries."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*at, key)
        yield from paths(part, (*at, key))


def spoil(
    draw: Callable[..., Any],
    value: Any,
    max_changes: int,
    allowed: Callable[[Any, tuple], bool] = lambda *_: True,
    replacements: st.SearchStrategy = odd,
) -> int:
    """Replace, remove, repeat or add up to some parts of nested lists and dictionaries in place; return how many."""
    done = 0
    for _ in range(draw(st.integers(0, max_changes))):
        choices = [path for path in paths(value) if allowed(value, path)]
        if not choices:
            break
        *at, key = draw(st.sampled_from(choices))
        home, how = functools.reduce(operator.getitem, at, value), draw(st.sampled_from("rrrrdai"))
        if how == "d":
            del home[key]
        elif how == "r" or isinstance(home, dict):
            home[key] = draw(replacements)
        elif how == "a":
            home.insert(key + 1, deepcopy(home[key]))
        else:
            home.insert(key, draw(replacements))
        done += 1
    return done


def spoil_text(draw: Callable[..., Any], text: str, max_changes: int = 2) -> str:
    """Remove up to some pieces of a text, or replace them by something odd."""
    for _ in range(draw(st.integers(1, max_changes))):
        start = draw(st.integers(0, max(0, len(text) - 1)))
        end = start + draw(st.sampled_from([0, 1, 2, 5, 40, len(text)]))
        put = st.sampled_from(["", ":", "-", "[", "]", "{", "\t", "\n", "&a", "*a", "!x ", "#", "'", "\x00", "é", "<"])
        text = text[:start] + draw(put) + text[end:]
    return text
