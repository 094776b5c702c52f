"""Images whose annotations are one object of S3, COCO's JSON or a list of VOC: they are fetched from where they lie.

Where an image lies is found by listing folders, each once, so that it does not depend on who was fetched first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from posixpath import normpath
from typing import TypeVar

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data.image_sources import SUFFIXES, Entry, RefusedError, fetched_ahead, in_order, of_s3

UNTOLD = "has no annotation: write one without objects if nothing is on it"
NO_IMAGE = "is annotated, and no image of its name is there"
_BUCKET = 3  # "s3:", "" and the name of a bucket
Settle = Callable[[str, tuple[int, int]], str]
T = TypeVar("T")


class Folders:
    """Where the images of COCO's JSON at `address` may be: beside it, or where COCO has them; never above its folder's
    own folder."""

    def __init__(self, address: str) -> None:
        beside, _, file = address.rpartition("/")
        above = _above(beside)
        part = file.rpartition(".")[0].removeprefix("instances_")
        self._places = [beside, storage.join(beside, "images")]
        if above:
            self._places += [above, *(storage.join(above, name) for name in ("images", part, f"images/{part}"))]
        self._names: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> str:
        """The address of an image, "" where there is none."""
        if not name or _leaves(name):
            return ""
        folder, _, file = normpath(name).rpartition("/")
        for place in self._places:
            at = storage.join(place, folder) if folder else place
            if at not in self._names:
                self._names[at] = frozenset(storage.list_names(at))
            if file in self._names[at]:
                return storage.join(at, file)
        return ""


def read(address: str, lacking: str) -> bytes:
    """The bytes of the image at `address`.

    Raises:
        RefusedError: with the text `lacking`, where the address is "".
    """
    if not address:
        raise RefusedError(lacking)
    return of_s3(address)


def voc_root(address: str) -> str:
    """The folder above ``ImageSets/Main``, in which a list of VOC lies.

    Raises:
        PlatformError: ``code="bad_source"``: there are no ``Annotations`` in it.
    """
    root = _above(_above(address.rpartition("/")[0]))
    if not root or "Annotations" not in storage.list_names(root):
        raise PlatformError(
            f"no images can be read from {address}",
            detail="a text file lists images of Pascal VOC, and must lie in VOC/ImageSets/Main, beside VOC/Annotations",
            fix="give such a list, the folder above Annotations and JPEGImages, or a manifest (CSV, JSON lines, "
            "Parquet)",
            code="bad_source",
        )
    return root


def of_voc(root: str, names: Sequence[str], settle: Settle, most: int) -> Iterator[Entry]:
    """The images with these names, without what they end in, of the folder `root` in S3.

    settle: says the label by an annotation and the size of its image.  most: bytes of an annotation.
    """
    storage.ready(root)
    told = storage.join(root, "Annotations")
    listed: dict[str, dict[str, str]] = {}

    def image_of(name: str) -> str:
        folder, _, stem = name.rpartition("/")
        if _leaves(name):
            return ""
        if folder not in listed:
            there = storage.list_names(storage.join(root, "JPEGImages", *([folder] if folder else [])))
            images = [one for one in there if f".{one.rpartition('.')[2].lower()}" in SUFFIXES]
            listed[folder] = {one.rpartition(".")[0]: one for one in images}
        file = listed[folder].get(stem, "")
        return "/".join(part for part in ("JPEGImages", folder, file) if part) if file else ""

    def row(name: str) -> tuple[str, str]:
        if _leaves(name):
            return name, UNTOLD
        try:
            with storage.open_parts(storage.join(told, f"{name}.xml")) as stream:
                return name, stream.read(most + 1).decode("utf-8", "replace")
        except PlatformError as err:
            if err.code != "not_found":
                raise
            return name, UNTOLD

    def rows() -> Iterator[tuple[Entry, str]]:
        for name, text in in_order(row, names):
            image = image_of(name)
            at = storage.join(root, image) if image else ""
            yield Entry(image or name, text, partial(read, at, NO_IMAGE), partial(settle, text)), at

    return fetched_ahead(rows())


def _leaves(name: str) -> bool:
    """Whether a name leads out of the folder that it is looked for in."""
    return f"{normpath(name)}/".startswith(("/", "../"))


def _above(address: str) -> str:
    """The folder that a folder lies in, "" of a bucket."""
    return address.rpartition("/")[0] if address.count("/") >= _BUCKET else ""
