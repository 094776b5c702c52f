"""Weights that transformers saved, in one safetensors file or in several with an index, read tensor by tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import sha256_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights in safetensors."""
    return (folder / ONE).is_file() or (folder / INDEX).is_file()


class WeightFiles(Mapping[str, "NDArray[Any]"]):
    """Tensors by name, in float32 whatever the files have; each is read when it is asked for, and not kept.

    Attributes:
        files: by name. With both forms in a folder the single file counts, as transformers has it.
        shapes: of the tensors, by name.

    Raises:
        ValueError: a file of the index is missing, or one is cut short, broken or without a tensor of the index.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        where = {} if (folder / ONE).is_file() else _indexed(folder / INDEX)
        self.files = sorted(set(where.values())) or [ONE]
        self._open: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name in self.files:
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing, which {INDEX} names")
            self._read(name, where)
        if left := sorted(where.keys() - self._where.keys()):
            raise ValueError(f"{where[left[0]]} has no tensor {left[0]}, which {INDEX} says is there")

    @property
    def digest(self) -> str:
        """sha256 of the only file; of several, of their names and digests."""
        if self.files == [ONE]:
            return sha256_file(self._folder / ONE)
        said = "".join(f"{name} {sha256_file(self._folder / name)}\n" for name in self.files)
        return hashlib.sha256(said.encode()).hexdigest()

    def __getitem__(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = self._open[self._where[name]].get_tensor(name).float().numpy()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def drop(self, name: str) -> None:
        """Leave a tensor out, if there is one of this name."""
        self._where.pop(name, None)

    def _read(self, name: str, where: Mapping[str, str]) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            opened: Any = safe_open(self._folder / name, "pt")
        except SafetensorError as err:
            raise ValueError(f"{name} is cut short or broken: {err}") from err
        self._open[name] = opened
        for tensor in opened.keys():  # noqa: SIM118 - no mapping
            if where.get(tensor, name) == name:
                self._where[tensor] = name
                self.shapes[tensor] = tuple(opened.get_slice(tensor).get_shape())


def _indexed(file: Path) -> dict[str, str]:
    """Files by the names of their tensors."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        good = isinstance(found, dict) and found and all(isinstance(one, str) for one in found.values())
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise ValueError(f"{file.name} has no weight_map of tensors to files")
    if wrong := [one for one in found.values() if Path(one).name != one or not one.endswith(".safetensors")]:
        raise ValueError(f"{file.name} names {wrong[0]!r}, which is no safetensors file beside it")
    return dict(found)
