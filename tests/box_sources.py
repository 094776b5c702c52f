"""Folders of images with boxes, as VOC, COCO and YOLO have them, and what is read from a source."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contracts.problems.detection import Truth, read_truth
from pipelines.data.box_sources import entries
from pipelines.data.image_sources import RefusedError
from pipelines.task import DataConfig

SIZE = (40, 30)
BOX = (2.0, 3.0, 20.0, 25.0)


def photo(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def xml(*objects: tuple[str, Any], size: tuple[int, int] = SIZE) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(names, box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{inner}</annotation>"


def voc(root: Path, annotations: dict[str, str | None]) -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for at, (name, text) in enumerate(annotations.items()):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(photo(at))
        if text is not None:
            (root / "Annotations" / f"{name}.xml").write_text(text)
    return root


def read(source: Path) -> dict[str, list[Truth] | str]:
    """What is on each image, or why it is refused."""
    found: dict[str, list[Truth] | str] = {}
    for one in entries(str(source), "image", "label", DataConfig()):
        try:
            shown = Image.open(io.BytesIO(one.read())).size
            assert one.settle is not None
            found[one.name] = read_truth(one.settle(shown))
        except RefusedError as err:
            found[one.name] = str(err)
    return found


def coco(folder: Path, **changes: Any) -> Path:
    (folder / "images").mkdir(parents=True)
    for at, name in enumerate("ab"):
        (folder / "images" / f"{name}.jpg").write_bytes(photo(at))
    document = {
        "images": [{"id": at, "file_name": f"{name}.jpg", "width": 40, "height": 30} for at, name in enumerate("abc")],
        "categories": [{"id": 7, "name": "cup"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 7, "bbox": [2, 3, 18, 22], "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    }
    file = folder / "found.json"
    file.write_text(json.dumps(document | changes))
    return file


YOLO = "0 0.275 0.46666666666666667 0.45 0.7333333333333333\n"  # the middle and sides of BOX


def yolo(root: Path, lines: dict[str, str | None], names: str = "names: {0: cup, 1: pen}\n") -> Path:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    (root / "data.yaml").write_text(names)
    for at, (name, text) in enumerate(lines.items()):
        (root / "images" / "train" / f"{name}.jpg").write_bytes(photo(at))
        if text is not None:
            (root / "labels" / "train" / f"{name}.txt").write_text(text)
    return root
