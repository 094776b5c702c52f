"""What texts and images are like, in a few numbers that tell nothing of what they say: for logs, which keep no content.

A trait has a name and, for a value, a number, the name of a category, or None where it says nothing. ``baseline.json``
describes them in the entry of their input as ``traits``, and has in ``grams`` what `familiar` looks for, in ``center``
the unit vector that `DISTANCE` is measured from. Which inputs have traits is said by their dtype: `TRAITS`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.baseline import category, listed, number
from contracts.bundle import Input

Traits = dict[str, float | str | None]
Describe = Callable[[Any], Traits]
SEPARATOR = ":"  # between the name of an input and that of a trait, where both are columns
DISTANCE = "distance"  # of the model's own vector of a row from the usual one: 1 - cosine, from 0 to 2
UNKNOWN = "unknown"  # share of tokens that the model's tokenizer does not know, of its first text

_MOST = 4  # inputs that are described, for speed
_LOOKED, _STEP = 192, 4  # characters of a text that are looked at; of its trigrams every fourth, for speed
_LETTERS = 48  # of these for its script
_GRAMS, _ROWS = 4_000, 3  # character trigrams that are kept, and texts that must have one
_CENTER, _VECTORS = 4, 32  # every fourth vector makes the center, of at least so many; the others are measured
_SIDE = 32  # lines of an image that are looked at, and pixels of each
# Where the blocks of scripts begin (Unicode 15); what lies between is other letters.
_BLOCKS = (
    (0x0041, "latin"),
    (0x0370, "greek"),
    (0x0400, "cyrillic"),
    (0x0530, "other"),
    (0x0590, "hebrew"),
    (0x0600, "arabic"),
    (0x0780, "other"),
    (0x0900, "indic"),
    (0x0E00, "thai"),
    (0x0E80, "other"),
    (0x1100, "hangul"),
    (0x1200, "other"),
    (0x1E00, "latin"),
    (0x1F00, "greek"),
    (0x2000, "other"),
    (0x3040, "kana"),
    (0x3100, "han"),
    (0x3130, "hangul"),
    (0x3190, "han"),
    (0xA000, "other"),
    (0xAC00, "hangul"),
    (0xD7B0, "other"),
    (0xF900, "han"),
    (0xFB00, "other"),
    (0x20000, "han"),
)
_STARTS, _SCRIPTS = [start for start, _ in _BLOCKS], [name for _, name in _BLOCKS]


def text_traits(described: Mapping[str, Any]) -> Describe:
    """``script`` of a text's letters; and ``familiar``, the share of its trigrams of characters that the model's
    training data had: it falls when the language changes (W. Cavnar, J. Trenkle: N-gram-based text categorization,
    1994).

    Args:
        described: the input's entry in the baseline; without its ``grams`` nothing is said of what is familiar.
    """
    known = frozenset(described.get("grams", ()))

    def traits(text: Any) -> Traits:
        start = str(text)[:_LOOKED]
        found: Traits = {"script": _script(start)}
        if known:
            grams = _trigrams(start, _STEP)
            found["familiar"] = round(len(grams & known) / len(grams), 4) if grams else None
        return found

    return traits


def size_column(name: str) -> str:
    """The column beside an input of images with the width and height of each file in pixels, shape (rows, 2): as it
    is shown, before it is resized. `contracts.engine.DecodingEngine.decode` adds it."""
    return f"{name}{SEPARATOR}size"


def size_traits(size: Sequence[Any]) -> Traits:
    """``width`` and ``height`` of a row of `size_column`."""
    return {"width": int(size[0]), "height": int(size[1])}


def image_traits(described: Mapping[str, Any]) -> Describe:
    """``brightness``, ``contrast`` and ``sharpness`` of decoded pixels: mean, deviation, and how far neighbours differ
    in deviations, of some lines."""
    return _of_pixels


TRAITS: Mapping[str, Callable[[Mapping[str, Any]], Describe]] = {"string": text_traits, "bytes": image_traits}


def traits_of(inputs: Sequence[Input], normal: Mapping[str, Any]) -> dict[str, Describe]:
    """What describes the content of each input that has traits, by its name.

    Args:
        normal: ``inputs`` of the baseline, {} for none.
    """
    found = [item for item in inputs if _has_traits(item, normal.get(item.name, {}))]
    return {item.name: TRAITS[item.dtype](normal.get(item.name, {})) for item in found[:_MOST]}


def _has_traits(item: Input, described: Mapping[str, Any]) -> bool:
    """Whether it is content: no declared category, and none that its few values make one."""
    return item.dtype in TRAITS and item.categories is None and described.get("kind") != "category"


def looked_at(value: Any) -> Any:
    """The little of a text or of pixels that its traits are made of: they are the same of this as of the value itself.

    It is a value of its own, so that it can wait for its traits without the rest of a request.
    """
    return value[:_LOOKED] if isinstance(value, str) else _middle(np.asarray(value)).copy()


def unknown_share(ids: Sequence[int], unknown: int) -> float | None:
    """The share of a text's tokens that are the unknown one."""
    return round(ids.count(unknown) / len(ids), 4) if len(ids) else None


def distance(vector: NDArray[Any], center: NDArray[np.float64]) -> Traits:
    """`DISTANCE` of a row's vector, shape (width,), from a `center` of length one; {} of a vector without direction."""
    length = float(np.linalg.norm(vector))
    return {DISTANCE: round(1 - float(vector @ center) / length, 6)} if length else {}


def describe_content(
    columns: Mapping[str, NDArray[Any]],
    inputs: Sequence[Input],
    normal: Mapping[str, Any],
    unknown: Sequence[float | None] = (),
    vectors: Sequence[NDArray[np.float64]] = (),
) -> dict[str, dict[str, Any]]:
    """``traits``, ``grams`` and ``center`` of each input that has some, for its entry in the baseline.

    Args:
        columns: of images their pixels, and their `size_column` where it is known.
        normal: the entries so far.
        unknown: of each row the share of unknown tokens, where the model has a tokenizer.
        vectors: of some rows the model's own, where it has one; as `unknown` of the first of these inputs.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in [item for item in inputs if _has_traits(item, normal.get(item.name, {}))][:_MOST]:
        values = columns[item.name].tolist() if item.dtype == "string" else list(columns[item.name])
        # What is familiar is learned of every second row and measured of the others.
        grams = _common(values[::2]) if item.dtype == "string" else []
        describe = TRAITS[item.dtype]({"grams": grams})
        rows = [describe(value) for value in (values[1::2] if grams else values)]
        traits = _described(rows)
        center = np.zeros(0) if found else _center(vectors)
        if (sizes := columns.get(size_column(item.name))) is not None:
            traits |= _described([size_traits(size) for size in sizes])
        if unknown and not found:
            traits |= _described([{UNKNOWN: share} for share in unknown])
        if len(center):  # measured of other rows than it was made of, for those are nearer
            others = [vector for at, vector in enumerate(vectors) if at % _CENTER]
            traits |= _described([row for row in (distance(one, center) for one in others) if row])
        more = {"grams": grams, "center": listed(center)}
        found[item.name] = {"traits": traits, **{name: said for name, said in more.items() if said}}
    return found


def _center(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The direction of the mean of some unit vectors, in float32; nothing of too few, or where there is none."""
    if len(vectors) < _VECTORS:
        return np.zeros(0)
    some = np.stack(vectors[::_CENTER]).astype(np.float64)
    mean = (some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-12)).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length).astype(np.float32).astype(np.float64) if length > 1e-6 else np.zeros(0)


def _described(rows: Sequence[Traits]) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        if any(isinstance(value, str) for value in values):
            described[name] = category([str(value or "") for value in values])
        else:
            described[name] = number(np.array([math.nan if one is None else one for one in values], dtype=np.float64))
        described[name]["rows"] = len(rows)
    return described


def _common(texts: Sequence[Any]) -> list[str]:
    """The trigrams that several texts have, the commonest first."""
    counted = Counter(gram for text in texts for gram in _trigrams(str(text or "")[:_LOOKED]))
    return [gram for gram, rows in counted.most_common(_GRAMS) if rows >= _ROWS]


def _trigrams(text: str, step: int = 1) -> set[str]:
    lower = text.lower()
    return {lower[at : at + 3] for at in range(0, len(lower) - 2, step)}


def _script(text: str) -> str | None:
    """The commonest script of the first letters; None where there are none."""
    letters = [sign for sign in text[: 2 * _LETTERS] if sign.isalpha()][:_LETTERS]
    if not letters:
        return None
    if "".join(letters).isascii():
        return "latin"
    counted = Counter(_SCRIPTS[bisect_right(_STARTS, ord(sign)) - 1] for sign in letters)
    return max(sorted(counted), key=counted.__getitem__)


def _of_pixels(pixels: Any) -> Traits:
    values = np.asarray(pixels)
    if values.ndim < 2 or not values.size:
        return {}
    grey = _middle(values).astype(np.float64)
    if grey.ndim == 3:
        grey = grey.mean(axis=-1)
    from contracts.images import sharpness  # which needs Pillow, as whoever has pixels does

    found = {"brightness": float(grey.mean()), "contrast": float(grey.std()), "sharpness": sharpness(grey)}
    return {name: round(value, 4) for name, value in found.items()}


def _middle(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels in the middle of some lines, channels last."""
    if pixels.ndim < 2 or not pixels.size:
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] <= 4 < pixels.shape[2]:  # channels first
        pixels = pixels.transpose(1, 2, 0)
    lines = pixels[:: -(-pixels.shape[0] // _SIDE)]
    left = max(0, (lines.shape[1] - _SIDE) // 2)
    return lines[:, left : left + _SIDE]
