"""Adapters: the small part of a model that belongs to one person or customer, over a base that all share.

An adapter is a safetensors file of named arrays. Its header says which bundle it belongs to, by digest, whose it is, by
a keyed hash, which layer of a service knows how to apply it, and its version. Nothing in it can be executed. The same
form carries the last layer of a ranking, a correction of a classification, or matrices of low rank for a chat model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "fairlead-adapter-1"
MAX_BYTES = 64 << 20  # of one adapter; matrices of low rank have some millions of numbers
_SAID = ("format", "layer", "base", "entity", "version", "updates")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One version of the part of one entity.

    Attributes:
        layer: what applies it, see `services.adapters.layer`.
        base: digest of the bundle that it was learned over, 64 hexadecimal digits.
        entity: keyed hash of whose it is.
        version: 1 for the first; each update makes the next.
        tensors: by name; numbers of at most 64 bits.
        updates: marks of the latest updates that are in it, by which who made one finds it in a later version.
        pieces: what a layer derives from the tensors, kept as long as they are in memory.
    """

    layer: str
    base: str
    entity: str
    version: int
    tensors: Mapping[str, NDArray[Any]]
    updates: Sequence[str] = ()
    pieces: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def to_bytes(self) -> bytes:
        """The file of it."""
        import numpy as np
        from safetensors.numpy import save

        values = (FORMAT, self.layer, self.base, self.entity, str(self.version), " ".join(self.updates))
        said = dict(zip(_SAID, values, strict=True))
        return save({name: np.ascontiguousarray(one) for name, one in self.tensors.items()}, said)


def read_adapter(data: bytes) -> Adapter:
    """The adapter of a file's bytes.

    Raises:
        PlatformError: ``code="bad_adapter"``: it is too large, cut, no adapter, or has a number that is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"has {len(data)} bytes, at most {MAX_BYTES} are read")
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        said = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        form, layer, base, entity, version, updates = (said[name] for name in _SAID)
        if form != FORMAT:
            raise ValueError(f"its format is {form}, not {FORMAT}")
        _check_finite(tensors)
        return Adapter(
            layer=layer, base=base, entity=entity, version=int(version), tensors=tensors, updates=updates.split()
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as err:
        detail = f"its header has no {err.args[0]}" if isinstance(err, KeyError) else str(err)
        raise PlatformError(
            "not an adapter", detail=detail, fix="remove it: the base answers alone until the next feedback",
            code="bad_adapter",
        ) from err  # fmt: skip


def _check_finite(tensors: Mapping[str, NDArray[Any]]) -> None:
    import numpy as np

    for name, one in tensors.items():
        if one.dtype.kind == "f" and not np.isfinite(one).all():
            raise ValueError(f"{name} has a number that is not finite")
