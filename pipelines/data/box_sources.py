"""Where images with boxes come from: Pascal VOC's XML, COCO's JSON, YOLO's text, all of them packed too, or a manifest.

A box is left, top, right, bottom in pixels of the image as it is seen. What an annotation says stays as it is until the
size of its image is known; then it is checked, and an image with a box that cannot be right is refused with its reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from contracts.errors import PlatformError
from contracts.problems.detection import Truth, read_truth, write_truth
from pipelines.data import box_remote, box_yolo
from pipelines.data.image_sources import ARCHIVES, MAX_BYTES, SUFFIXES, Entry, RefusedError, bounded, fetched_ahead
from pipelines.data.image_sources import entries as image_entries
from pipelines.data.origins import address_of
from pipelines.data.unpacking import unpacked

if TYPE_CHECKING:
    from pipelines.task import DataConfig

_XML_BYTES = 4 << 20
_JSON_BYTES = 1 << 30
_NOT_BESIDE = "is not beside the file with the annotations, nor in images/ there"
_APART = ("annotations", "labels", "xml", "jpegimages", "images")
_OVER = 2.0  # pixels by which a box may reach over an edge, as the tools of annotators round


def entries(source: str, column: str, label: str, data: DataConfig) -> Iterator[Entry]:
    """The images of `source` with what is on them; as `pipelines.data.image_sources.entries`.

    Raises:
        PlatformError: ``code="bad_source"``: not there, or not of a kind that is read.
    """
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file() and path.suffix.lower() == ".txt" and (address := address_of(path)):
        lines = path.read_text(encoding="utf-8").split("\n")
        return box_remote.of_voc(box_remote.voc_root(address), _listed(lines), _of_xml, _XML_BYTES)
    if path.is_file() and path.suffix.lower() == ".txt" and (path.parents[2] / "Annotations").is_dir():
        return _of_voc(path.parents[2], path.read_text(encoding="utf-8").split("\n"))
    if path.is_file() and path.suffix.lower() == ".json":
        return _of_coco(path, address_of(path))
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return _of_archive(path)
    if path.is_file():
        return (
            Entry(one.name, one.label, one.read, partial(_of_text, one.label))
            for one in image_entries(source, column, label, data)
        )
    raise PlatformError(
        f"source not found: {source}",
        detail="accepted: a folder of images with Pascal VOC's XML, COCO's JSON or YOLO's text, or an archive of it; a "
        "list of VOC's ImageSets; a manifest (CSV, JSON lines, Parquet) with a column of objects as JSON",
        fix="give the folder above Annotations and JPEGImages, or the file with the annotations beside the images",
        code="bad_source",
    )


def settled(objects: Sequence[tuple[str, Sequence[float], bool]], said: tuple[int, int], size: tuple[int, int]) -> str:
    """The label of an image of `size` (width, height) whose annotation says that it is of the size `said`; 0: nothing.

    Raises:
        RefusedError: naming the first object that cannot be right.
    """
    if all(said) and said != size:
        raise RefusedError(f"is {size[0]}x{size[1]}, its annotation is of an image of {said[0]}x{said[1]}")
    return write_truth(_checked(at, *one, size) for at, one in enumerate(objects, 1))


def _checked(at: int, label: str, box: Sequence[float], crowd: bool, size: tuple[int, int]) -> Truth:
    what = f"object {at}" + (f" ({label})" if label else "")
    if not label:
        raise RefusedError(f"{what} has no class, or one that is not declared")
    left, top, right, bottom = box
    if not all(-1e9 < side < 1e9 for side in box):
        raise RefusedError(f"the box of {what} has a side that is no number")
    if right < left or bottom < top:
        raise RefusedError(f"the box of {what} has its corners swapped: {_said(box)}")
    if right <= left or bottom <= top:
        raise RefusedError(f"the box of {what} has no area: {_said(box)}")
    if min(left, top) < -_OVER or right > size[0] + _OVER or bottom > size[1] + _OVER:
        raise RefusedError(f"the box of {what} reaches out of the image, which is {size[0]}x{size[1]}: {_said(box)}")
    inside = (max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise RefusedError(f"the box of {what} lies outside of the image, which is {size[0]}x{size[1]}: {_said(box)}")
    return Truth(label, inside, crowd)


def _said(box: Sequence[float]) -> str:
    return ", ".join(f"{name} {side:g}" for name, side in zip(("left", "top", "right", "bottom"), box, strict=True))


def _of_text(text: str, size: tuple[int, int]) -> str:
    """Of a manifest: objects as a label column holds them."""
    try:
        found = [(one.label, one.box, one.crowd) for one in read_truth(text or "[]")]
    except ValueError as err:
        raise RefusedError(f"has objects that cannot be read: {err}") from None
    return settled(found, (0, 0), size)


def _of_archive(path: Path) -> Iterator[Entry]:
    """What is in it, unpacked for as long as it is read."""
    with unpacked(path, {*SUFFIXES, ".xml", ".json", ".txt", ".names", ".yaml", ".yml"}, _JSON_BYTES) as root:
        yield from _of_folder(root, path.name)


def _of_folder(root: Path, name: str = "") -> Iterator[Entry]:
    """By the annotations that are there; `name` is what errors call the folder.

    Raises:
        PlatformError: ``code="bad_source"``: there are none, or several files of COCO.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    kinds = Counter(path.suffix.lower() for path in files)
    coco = [path for path in files if path.suffix.lower() == ".json"]
    texts = any(path.suffix.lower() == ".txt" and not box_yolo.is_names(path) for path in files)
    if kinds[".xml"]:
        return _of_voc(root, None)
    if len(coco) == 1:
        return _of_coco(coco[0])
    if texts and not coco:
        return _of_yolo(root, files)
    images = sum(kinds[suffix] for suffix in SUFFIXES)
    several = ", ".join(str(path.relative_to(root)) for path in coco[:5])
    raise PlatformError(
        f"{'several files with' if coco else 'no'} annotations below {name or root}",
        detail=several or f"{images} images, no file that ends in .xml, .json or .txt",
        fix="unpack it, and give one of these files"
        if name and coco
        else "give one of these files"
        if coco
        else "give COCO's JSON file, or a folder with an XML file, or a text file of YOLO, for each image",
        code="bad_source",
    )


def _of_yolo(root: Path, files: Sequence[Path]) -> Iterator[Entry]:
    """A text file for each image, see `pipelines.data.box_yolo`."""
    names = box_yolo.read_names(root, list(files))
    images = {_key(root, path): path for path in files if path.suffix.lower() in SUFFIXES}
    told = {_key(root, path): path for path in files if path.suffix.lower() == ".txt" and not box_yolo.is_names(path)}
    for stem in sorted({*images, *told}):
        image, text = images.get(stem), told.get(stem)
        if image is None and text is not None and "labels" not in text.relative_to(root).parent.parts:
            continue  # a list of names of files, or words for people
        lines = box_yolo.read_bounded(text) if text else ""
        name = image.relative_to(root).as_posix() if image else stem
        yield Entry(
            name,
            box_yolo.noted(lines, names),
            partial(_read, image),
            partial(_of_lines, lines if text else None, names),
        )


def _of_lines(text: str | None, names: Mapping[int, str], size: tuple[int, int]) -> str:
    if text is None:
        raise RefusedError("has no annotation: write an empty one if nothing is on it")
    return settled(box_yolo.objects(text, names, size), (0, 0), size)


def _of_voc(root: Path, listed: Sequence[str] | None) -> Iterator[Entry]:
    """An XML file for each image; `listed` are the names of those that are asked for, without what they end in."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = {_key(root, path): path for path in files if path.suffix.lower() in SUFFIXES}
    told = {_key(root, path): path for path in files if path.suffix.lower() == ".xml"}
    for stem in _listed(listed) if listed is not None else sorted({*images, *told}):
        image, xml = images.get(stem), told.get(stem)
        name = image.relative_to(root).as_posix() if image else stem
        text = _text_of(xml) if xml else box_remote.UNTOLD
        yield Entry(name, text, partial(_read, image), partial(_of_xml, text))


def _listed(lines: Sequence[str]) -> list[str]:
    """The first word of each line: some lists say behind a name whether the image has objects of a class."""
    return [line.split()[0] for line in lines if line.split()]


def _key(root: Path, path: Path) -> str:
    """What an image and its annotation have in common: their place, but for the folders that tell them apart."""
    parts = path.relative_to(root).parent.parts
    return "/".join([*(part for part in parts if part.lower() not in _APART), path.stem])


def _read(image: Path | None) -> bytes:
    if image is None:
        raise RefusedError(box_remote.NO_IMAGE)
    return bounded(image.open("rb"))


def _text_of(xml: Path) -> str:
    with xml.open("rb") as stream:
        return stream.read(_XML_BYTES + 1).decode("utf-8", "replace")


def _of_xml(text: str, size: tuple[int, int]) -> str:
    if not text.lstrip().startswith("<"):
        raise RefusedError(text or "has an empty annotation")
    if len(text) > _XML_BYTES or "<!" in text.replace("<!--", ""):
        raise RefusedError("has an annotation that is larger than 4 MB, or declares a document type")
    try:
        tree = ElementTree.fromstring(text)
        said = (int(float(tree.findtext("size/width") or 0)), int(float(tree.findtext("size/height") or 0)))
        found = [
            (
                (one.findtext("name") or "").strip(),
                [float(one.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")],
                False,
            )
            for one in tree.iter("object")
        ]
    except (ElementTree.ParseError, ValueError) as err:
        raise RefusedError(f"has an annotation that cannot be read: {str(err)[:80]}") from None
    return settled(found, said, size)


def _of_coco(path: Path, address: str = "") -> Iterator[Entry]:
    """``images``, ``annotations`` and ``categories`` of one file; images lie beside it, or where COCO has them.

    address: where it lies in S3, if it does.
    """
    if path.stat().st_size > _JSON_BYTES:
        raise _no_coco(path, f"it is larger than {_JSON_BYTES >> 20} MB")
    try:
        document = json.loads(path.read_bytes())
        names = {one["id"]: str(one["name"]) for one in document["categories"]}
        of_image: dict[Any, list[Mapping[str, Any]]] = {one["id"]: [] for one in document["images"]}
        for one in document["annotations"]:
            if one["image_id"] not in of_image:
                raise _no_coco(path, f"annotation {one.get('id')} is of image {one['image_id']}, which is not there")
            of_image[one["image_id"]].append(one)
    except (ValueError, KeyError, TypeError) as err:
        raise _no_coco(path, f"{type(err).__name__}: {str(err)[:100]}") from err
    there = box_remote.Folders(address) if address else None

    def row(image: Mapping[str, Any]) -> tuple[Entry, str]:
        mine = of_image[image["id"]]
        size = (int(image.get("width") or 0), int(image.get("height") or 0))
        label = json.dumps([size, [[names.get(one.get("category_id"), ""), one.get("bbox")] for one in mine]])
        name = str(image.get("file_name", ""))
        at = there.find(name) if there else ""
        read = partial(box_remote.read, at, _NOT_BESIDE) if there else partial(_beside, path, name)
        return Entry(name, label, read, partial(_of_boxes, mine, names, size)), at

    return fetched_ahead(map(row, document["images"]))


def _of_boxes(
    mine: Sequence[Mapping[str, Any]], names: Mapping[Any, str], said: tuple[int, int], size: tuple[int, int]
) -> str:
    found = []
    for at, one in enumerate(mine, 1):
        box = one.get("bbox")
        if type(box) is not list or len(box) != 4 or any(type(side) not in (int, float) for side in box):
            raise RefusedError(f"object {at} has no bbox of four numbers")
        left, top, wide, high = map(float, box)
        label = names.get(one.get("category_id"), "")
        found.append((label, (left, top, left + wide, top + high), bool(one.get("iscrowd", 0))))
    return settled(found, said, size)


def _beside(path: Path, name: str) -> bytes:
    above = path.parent.parent
    part = path.stem.removeprefix("instances_")
    for folder in (path.parent, path.parent / "images", above, above / "images", above / part, above / "images" / part):
        file = Path(normpath(folder / name))  # links in the folder are its owner's, names in the file are not
        if name and file.is_file() and file.is_relative_to(above):
            if file.stat().st_size > MAX_BYTES:
                raise RefusedError(f"is larger than {MAX_BYTES >> 20} MB")
            return bounded(file.open("rb"))
    raise RefusedError(_NOT_BESIDE)


def _no_coco(path: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"{path.name} has not the form of COCO's annotations",
        detail=detail,
        fix='give an object with "images", "annotations" and "categories", each a list of objects with an id',
        code="bad_source",
    )
