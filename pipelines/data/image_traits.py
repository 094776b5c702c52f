"""What a data set knows of an image beside its bytes, and which images are nearly the same.

``look`` is the difference hash of an image (dHash, N. Krawetz: Kind of like that, 2013) and the 72 grays that it is
made of, as hexadecimal digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

COLUMNS = ("sha256", "look", "width", "height", "brightness")
_BITS = 3  # that may differ between hashes of near duplicates
_GRAYS = 3.0  # by how much their grays may differ in the mean, apart from exposure
_FLAT = 4.0  # deviation of grays below which an image shows nothing to be compared
_BANDS = 4  # of 16 bits: hashes that differ in 3 bits agree in one of them
_PIXELS = 72  # whose grays are compared
_APART = 1e7  # more than the contrast of any grays: 72 times 72 times 255
_AT_ONCE, _GRAYS_AT_ONCE = 1 << 20, 1 << 15  # pairs whose hashes, and whose grays, are compared in one step
_MANY = 256  # images of a band that are told apart by their grays before they are compared in pairs
_WORTH = 0.8  # of the pairs of a set, at most, that are left when it is divided


def traits(image: Image.Image, content: bytes) -> dict[str, Any]:
    """`COLUMNS` of an upright image of RGB; `content` is what is kept of its file."""
    import numpy as np
    from PIL import Image

    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    grays = np.asarray(small, np.uint8)
    bits = np.packbits(grays[:, 1:] > grays[:, :-1])
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "look": bits.tobytes().hex() + grays.tobytes().hex(),
        "width": image.width,
        "height": image.height,
        "brightness": round(float(grays.mean()) / 255, 4),
    }


def near_groups(digests: Sequence[str], looks: Sequence[str]) -> list[str]:
    """A name for each image that it shares with its exact and near duplicates: the least digest among them.

    Near are images whose hashes differ in at most 3 of 64 bits and whose grays are the same but for exposure. Chains
    count: what is near to a near one is in the group. Images of nearly one color have only exact duplicates.
    """
    import numpy as np

    if not digests:
        return []
    raw = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), 80)
    hashes = raw[:, :8].copy().view(">u8").ravel().astype(np.uint64)
    grays = raw[:, 8:].astype(np.float32) * _PIXELS  # whole numbers, also without their mean, so that sums are exact
    grays -= np.rint(grays.mean(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    usable = np.flatnonzero(grays.std(axis=1, dtype=np.float64) >= _FLAT * _PIXELS)
    parents = np.arange(len(digests))
    first: dict[str, int] = {}
    for at, digest in enumerate(digests):
        _join(parents, first.setdefault(digest, at), at)
    shown = np.concatenate([raw[usable, :8].copy().view(np.uint16), grays[usable].astype(np.int16)], axis=1)
    _, alike, which = np.unique(_as_keys(shown), return_index=True, return_inverse=True)
    for one, other in zip(usable[alike][which].tolist(), usable.tolist(), strict=True):
        _join(parents, one, other)
    some = usable[alike]
    _flatten(parents)
    _join_near(parents, some, hashes[some], grays[some])
    roots = [_root(parents, at) for at in range(len(digests))]
    least: dict[int, str] = {}
    for root, digest in zip(roots, digests, strict=True):
        least[root] = min(digest, least.get(root, digest))
    return [least[root] for root in roots]


def _as_keys(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows that can be sorted as wholes."""
    import numpy as np

    whole = np.ascontiguousarray(rows)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()


def _join_near(
    parents: NDArray[np.int64], some: NDArray[np.int64], hashes: NDArray[np.uint64], grays: NDArray[np.float32]
) -> None:
    """Join the images `some`, shape (n,), that are near; grays, shape (n, 72), are without their mean, times 72.

    Hashes that are near agree in one of four bands of bits, and grays that are near have nearly the same contrast: each
    image is compared with all of its band whose contrast is so near, except those that it is joined with already. Bits
    that tell little, such as those of a white margin, are dealt out evenly, so that no band is of such bits only.
    Many images of one band are divided by their grays first, see `_divided`.
    """
    import numpy as np

    limit = _GRAYS * _PIXELS * _PIXELS
    rough = grays.reshape(-1, 8, 9).sum(axis=2)
    contrast = np.abs(grays).sum(axis=1, dtype=np.float64)
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)
    telling = np.argsort(np.abs(bits.mean(axis=0) - 0.5), kind="stable") if len(bits) else np.arange(64)
    done: list[NDArray[np.int64]] = []
    for band in range(_BANDS):
        part = np.packbits(bits[:, telling[band::_BANDS]], axis=1) @ np.array([256, 1])
        order, which = _sets(part, done, grays)
        order = order[sequence := np.lexsort((contrast[order], which))]
        place = which[sequence].astype(np.float64) * _APART + contrast[order]
        last = np.searchsorted(place, place + limit, "right") - 1
        sorted_hashes = hashes[order]
        begin = 0
        while begin < len(order):
            rows = np.arange(begin, len(order))
            roots = parents[some[order[begin:]]]
            ways = begin + np.flatnonzero(roots[1:] != roots[:-1])
            same = np.append(ways, len(order) - 1)[np.searchsorted(ways, rows)]  # as far as all are joined with it
            many = np.maximum(0, last[begin:] - same)
            ends = np.cumsum(many)
            count = max(1, int(np.searchsorted(ends, _AT_ONCE, "right")))
            rows, same, many, ends = rows[:count], same[:count], many[:count], ends[:count]
            one = np.repeat(rows, many)
            other = np.repeat(same + 1 - (ends - many), many) + np.arange(len(one))
            near = np.bitwise_count(sorted_hashes[one] ^ sorted_hashes[other]) <= _BITS
            one, other = order[one[near]], order[other[near]]
            new = np.all([earlier[one] != earlier[other] for earlier in done], axis=0) if done else slice(None)
            _join_alike(parents, some, (grays, rough), one[new], other[new])
            begin += count
        done.append(part)


def _sets(
    part: NDArray[np.int64], done: list[NDArray[np.int64]], grays: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and the set of each: any two of one part with near grays are in one set, and rows may be in several.

    part: what rows have in common, shape (n,). done: earlier parts; what is all of one of them was compared already.
    """
    import numpy as np

    _, which, counts = np.unique(part, return_inverse=True, return_counts=True)
    few = np.flatnonzero(counts[which] <= _MANY)
    sets: list[NDArray[np.int64]] = []
    for at in np.flatnonzero(counts > _MANY):
        rows = np.flatnonzero(which == at)
        if not any((earlier[rows] == earlier[rows[0]]).all() for earlier in done):
            sets.extend(_divided(rows, grays))
    numbers = np.repeat(len(counts) + np.arange(len(sets)), [len(one) for one in sets])
    return np.concatenate([few, *sets]), np.concatenate([which[few], numbers])


def _divided(rows: NDArray[np.int64], grays: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Sets of `rows` in which any two of them with near grays are together: halves that overlap, and halves of these.

    No sum of grays, each with a sign, differs by more than the grays do. The signs are those of the principal
    components, and a set is divided by the sum that varies most in it, at the place that leaves the fewest pairs; one
    that no sum divides well stays whole. That is about n log n for images that differ, n * n for noise of few grays.
    """
    import numpy as np

    limit = _GRAYS * _PIXELS * _PIXELS
    some = grays[rows].astype(np.float64)
    signs = np.where(np.linalg.eigh(np.cov(some, rowvar=False))[1] < 0, -1.0, 1.0)
    sums = some @ signs  # of whole numbers: exact
    left = [np.arange(len(rows))]
    while left:
        here = left.pop()
        if len(here) > _MANY:
            values = sums[here, sums[here].std(axis=0).argmax()]
            ranked = np.sort(values)
            low = np.searchsorted(ranked, ranked + limit / 2, "right")
            high = len(ranked) - np.searchsorted(ranked, ranked - limit / 2, "left")
            pairs = low.astype(np.float64) ** 2 + high.astype(np.float64) ** 2
            best = int(pairs.argmin())
            if pairs[best] <= _WORTH * len(here) ** 2:
                left += [here[values <= ranked[best] + limit / 2], here[values >= ranked[best] - limit / 2]]
                continue
        yield rows[here]


def _join_alike(
    parents: NDArray[np.int64],
    some: NDArray[np.int64],
    looks: tuple[NDArray[np.float32], NDArray[np.float32]],
    ones: NDArray[np.int64],
    others: NDArray[np.int64],
) -> None:
    """Join those of the pairs, each shape (pairs,), whose grays are near; looks: grays and their sums in each row."""
    import numpy as np

    grays, rough = looks
    limit = _GRAYS * _PIXELS * _PIXELS
    for at in range(0, len(ones), _GRAYS_AT_ONCE):
        one, other = ones[at : at + _GRAYS_AT_ONCE], others[at : at + _GRAYS_AT_ONCE]
        apart = parents[some[one]] != parents[some[other]]
        one, other = one[apart], other[apart]
        within = np.abs(rough[one] - rough[other]).sum(axis=1) <= limit  # no sum differs by more than its parts
        one, other = one[within], other[within]
        alike = np.abs(grays[one] - grays[other]).sum(axis=1) <= limit
        if alike.any():
            for left, right in zip(some[one[alike]].tolist(), some[other[alike]].tolist(), strict=True):
                _join(parents, left, right)
            _flatten(parents)


def _flatten(parents: NDArray[np.int64]) -> None:
    """Make the parent of each its root."""
    import numpy as np

    while not np.array_equal(above := parents[parents], parents):
        parents[:] = above


def _root(parents: NDArray[np.int64], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = int(parents[at])
    return at


def _join(parents: NDArray[np.int64], one: int, other: int) -> None:
    one, other = _root(parents, one), _root(parents, other)
    parents[max(one, other)] = min(one, other)
