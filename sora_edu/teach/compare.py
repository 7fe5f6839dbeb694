"""Comparing what a learner returned with what was asked for, and saying the difference in plain words.

Everything printed here is the same on every machine: numbers are rounded to five significant digits, and no
address, path or time appears.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

_PRINTED = 16
"""Arrays of up to this many numbers are printed whole."""

_KINDS = {
    "b": ("boolean", "booleans"),
    "i": ("whole-number", "whole numbers"),
    "u": ("whole-number", "whole numbers"),
    "f": ("real", "real numbers"),
    "c": ("complex", "complex numbers"),
    "O": ("mixed", "things that are no numbers"),
    "U": ("text", "text"),
}
"""What numpy's kinds of array are called, as an adjective and as a plural."""


def mismatch(got: Any, expected: Any, where: str = "") -> str | None:
    """Says how the type, structure or shape of a result differs from what is asked for.

    Args:
        got: the learner's result.
        expected: the right one.
        where: the part of the result that is being compared, such as `[1]`.

    Returns:
        A sentence without a full stop, or None if the two can be compared number by number.
    """
    what = f"part {where} of the result" if where else "the result"
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(expected):
            keys = ", ".join(map(repr, expected))
            return f"{what} is {describe(got)}; a dictionary with keys {keys} is asked for"
        pairs = [(got[key], expected[key], f"{where}[{key!r}]") for key in expected]
        return next(filter(None, (mismatch(*pair) for pair in pairs)), None)
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return f"{what} is {describe(got)}; {len(expected)} things in a tuple are asked for"
        if len(got) != len(expected):
            return f"{what} has {len(got)} parts; {len(expected)} are asked for"
        pairs = [(g, e, f"{where}[{i}]") for i, (g, e) in enumerate(zip(got, expected, strict=True))]
        return next(filter(None, (mismatch(*pair) for pair in pairs)), None)
    if _is_array(expected):
        return _array_mismatch(got, expected, what)
    if isinstance(expected, bool | np.bool_):
        right = isinstance(_plain(got), bool)
        return None if right else f"{what} is {describe(got)}; True or False is asked for"
    if isinstance(expected, numbers.Number):
        number = _plain(got)
        right = isinstance(number, numbers.Number) and not isinstance(number, bool)
        return None if right else f"{what} is {describe(got)}; a number is asked for"
    if not isinstance(got, type(expected)):
        return f"{what} is {describe(got)}; a {type(expected).__name__} is asked for"
    return None


def agree(got: Any, expected: Any, tolerance: float) -> bool:
    """True if two results are the same up to rounding.

    Whole numbers, booleans and text must be equal; real numbers may differ by `tolerance * (1 + |expected|)`;
    NaN agrees with NaN.
    """
    if mismatch(got, expected) is not None:
        return False
    if isinstance(expected, Mapping):
        return all(agree(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        return all(agree(g, e, tolerance) for g, e in zip(got, expected, strict=True))
    if _is_array(expected) or isinstance(expected, numbers.Number | np.generic):
        return not bool(_wrong(got, expected, tolerance).any())
    return bool(got == expected)


def difference(got: Any, expected: Any, tolerance: float) -> list[str]:
    """Lines that show a wrong result beside the right one.

    Small results are printed whole; of large ones the first wrong number, and how many are wrong.
    """
    if isinstance(expected, Mapping):
        parts = [(f"[{key!r}]", got[key], expected[key]) for key in expected]
    elif isinstance(expected, list | tuple):
        parts = [(f"[{i}]", g, e) for i, (g, e) in enumerate(zip(got, expected, strict=True))]
    else:
        return _array_difference(got, expected, tolerance)
    where, g, e = next(part for part in parts if not agree(*part[1:], tolerance))
    return [f"part {where} of the result:", *difference(g, e, tolerance)]


def describe(value: Any) -> str:
    """A value in a few words or numbers, the same on every machine."""
    if value is ...:
        return "..."
    if value is None or isinstance(value, bool | str):
        return repr(value)
    if isinstance(value, slice):
        return repr(value).removesuffix(", None)") + ")" * (value.step is None)
    if _is_array(value):
        array = _numpy(value)
        if 0 < array.size <= _PRINTED:
            return _brackets(_without_dust(array).tolist())
        owner = "tensor" if isinstance(value, Tensor) else "array"
        return f"a {_KINDS[array.dtype.kind][0]} {owner} of shape {_shape(array.shape)}"
    if isinstance(value, numbers.Number | np.generic):
        return _number(value)
    if isinstance(value, list | tuple) and len(value) <= _PRINTED:
        inner = ", ".join(map(describe, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Mapping) and len(value) <= _PRINTED:
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in value.items()) + "}"
    if isinstance(value, type) or callable(value):
        what = "class" if isinstance(value, type) else "function"
        return f"the {what} {getattr(value, '__name__', '')}".strip()
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def name_of(value: Any) -> str:
    """What kind of thing a value is: arrays by their library, everything else as `describe` has it."""
    if isinstance(value, np.ndarray):
        return "a numpy array"
    return "a torch tensor" if isinstance(value, Tensor) else describe(value)


def size(value: Any) -> int:
    """How many numbers a value holds: the order in which failing cases are shown."""
    if _is_array(value):
        return _numpy(value).size
    if isinstance(value, Mapping):
        return sum(map(size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(size, value))
    return abs(int(value)) if isinstance(value, numbers.Integral) else 1


def _array_mismatch(got: Any, expected: Any, what: str) -> str | None:
    tensor = isinstance(expected, Tensor)
    if isinstance(got, Tensor) is not tensor or not _is_array(got):
        asked = "a torch tensor" if tensor else "a numpy array"
        return f"{what} is {name_of(got)}; {asked} is asked for"
    if tuple(got.shape) != tuple(expected.shape):
        return f"{what} has shape {_shape(got.shape)}; {_shape(expected.shape)} is asked for"
    held, asked = (_KINDS[_numpy(x).dtype.kind][1] for x in (got, expected))
    return None if held == asked else f"{what} holds {held}; {asked} are asked for"


def _array_difference(got: Any, expected: Any, tolerance: float) -> list[str]:
    if not _is_array(expected) or _numpy(expected).size <= _PRINTED:
        return [*_labelled("got", got), *_labelled("expected", expected)]
    wrong = _wrong(got, expected, tolerance)
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return [
        f"{int(wrong.sum())} of {wrong.size} numbers are wrong, the first at {list(place)}:",
        f"got       {_number(_numpy(got)[place])}",
        f"expected  {_number(_numpy(expected)[place])}",
    ]


def _labelled(label: str, value: Any) -> list[str]:
    """A small value behind its label; a matrix row by row, in columns."""
    if not _is_array(value) or value.ndim != 2:
        return [f"{label:<10}{describe(value)}"]
    rows = [[_number(x) for x in row] for row in _without_dust(_numpy(value)).tolist()]
    width = max(len(text) for row in rows for text in row)
    lines = ["  ".join(f"{text:>{width}}" for text in row) for row in rows]
    return [f"{label if number == 0 else '':<10}{line}" for number, line in enumerate(lines)]


def _wrong(got: Any, expected: Any, tolerance: float) -> np.ndarray:
    """Where two arrays or numbers of one shape disagree."""
    g, e = np.asarray(_numpy(got)), np.asarray(_numpy(expected))
    if e.dtype.kind in "biu":
        return np.asarray(g != e)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(e) & (np.abs(g - e) <= tolerance * (1 + np.abs(e)))
    return np.asarray(~(near | (g == e) | (np.isnan(g) & np.isnan(e))))


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _numpy(value: Any) -> Any:
    """A tensor or number as numpy; half precisions are widened, for numpy has no bfloat16."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().to_dense()
        return (value.double() if value.is_floating_point() else value.resolve_conj()).numpy()
    if not isinstance(value, numbers.Number | np.generic):
        return value
    array = np.asarray(value)
    return array.astype(float) if array.dtype == object else array  # a whole number of more than 64 bits


def _plain(value: Any) -> Any:
    """A tensor or array without axes as the number that it holds."""
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def _shape(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _without_dust(array: np.ndarray) -> np.ndarray:
    """An array to be printed, with 0 for what rounding left of it: the cosine of a right angle is -4e-08."""
    if array.dtype.kind not in "fc" or not np.isfinite(array).any():
        return array
    largest = np.abs(array[np.isfinite(array)]).max()
    return np.where(np.abs(array) < 1e-6 * min(1.0, largest), 0.0, array)


def _brackets(values: Any) -> str:
    """Nested lists of numbers as text."""
    return "[" + ", ".join(map(_brackets, values)) + "]" if isinstance(values, list) else _number(values)


def _number(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, complex):
        return f"{_number(value.real)}{value.imag:+.5g}j"
    return f"{value + 0.0:.5g}"
