"""What a data set knows of an image beside its bytes, and which images are nearly the same.

``look`` is the difference hash of an image (dHash, N. Krawetz: Kind of like that, 2013) and the 72 grays that it is
made of, as hexadecimal digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
_NEIGHBOURS = 32  # that an image is compared with in one band


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
    count: what is near to a near one is in the group.
    """
    import numpy as np

    if not digests:
        return []
    raw = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8).reshape(len(looks), 80)
    hashes = raw[:, :8].copy().view(">u8").ravel().astype(np.uint64)
    grays = raw[:, 8:].astype(np.float32)
    grays -= grays.mean(axis=1, keepdims=True)
    parents = np.arange(len(digests))
    first: dict[str, int] = {}
    for at, digest in enumerate(digests):
        _join(parents, first.setdefault(digest, at), at)
    for one, other in _pairs(hashes, grays):
        _join(parents, int(one), int(other))
    roots = [_root(parents, at) for at in range(len(digests))]
    least: dict[int, str] = {}
    for root, digest in zip(roots, digests, strict=True):
        least[root] = min(digest, least.get(root, digest))
    return [least[root] for root in roots]


def _pairs(hashes: NDArray[np.uint64], grays: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs of near images, shape (pairs, 2)."""
    import numpy as np

    usable = np.flatnonzero(grays.std(axis=1) >= _FLAT)
    found = []
    for band in range(_BANDS):
        part = (hashes[usable] >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = usable[np.lexsort((hashes[usable], part))]
        bands = (hashes[order] >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            same = np.flatnonzero(bands[step:] == bands[:-step])
            if not len(same):
                break
            one, other = order[same], order[same + step]
            near = _differing(hashes[one] ^ hashes[other]) <= _BITS
            one, other = one[near], other[near]
            alike = np.abs(grays[one] - grays[other]).mean(axis=1) <= _GRAYS
            found.append(np.stack([one[alike], other[alike]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _differing(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits are set."""
    import numpy as np

    return np.bitwise_count(values).astype(np.int64)


def _root(parents: NDArray[np.int64], at: int) -> int:
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = int(parents[at])
    return at


def _join(parents: NDArray[np.int64], one: int, other: int) -> None:
    one, other = _root(parents, one), _root(parents, other)
    parents[max(one, other)] = min(one, other)
