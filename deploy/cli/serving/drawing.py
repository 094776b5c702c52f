"""``fairlead predict --draw``: the images of a request with the boxes of their answers, or the images of answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

_COLOURS = ("#17a34a", "#2563a8", "#d9730d", "#9333ea", "#dc2626", "#0891b2", "#b45309", "#be185d")
_LEAST_SIDE = 360  # of a picture
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def check_target(draw: str) -> None:
    """Refuse a picture that cannot be written before anything is predicted.

    Raises:
        PlatformError: ``code="bad_input"``: the file's name ends in no format of images.
    """
    if Path(draw).suffix.lower() not in _FORMATS:
        raise PlatformError(
            f"no picture can be written to {draw}",
            detail=f"accepted endings: {', '.join(_FORMATS)}",
            fix="--draw out.png",
            code="bad_input",
        )


def draw_answers(draw: str, images: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the images that answers are, or those of the request with boxes; of several, the second to ``out-2.png``
    and so on. Returns the files.

    Raises:
        PlatformError: ``code="bad_input"``: there are neither images nor boxes, or the folder is not there.
    """
    if any("image" not in one for one in predictions):
        if not images:
            raise PlatformError("--draw needs images", fix="give them with --image FILE", code="bad_input")
        return _draw_boxes(draw, images, predictions)
    target = Path(draw).expanduser()
    if target.suffix.lower() != ".png":  # another format would lose what they say of themselves
        raise PlatformError(
            f"generated images are PNG files, not {target.suffix}", fix="--draw out.png", code="bad_input"
        )
    return [_write(_numbered(target, at), base64.b64decode(one["image"])) for at, one in enumerate(predictions, 1)]


def _numbered(target: Path, number: int) -> Path:
    return target if number == 1 else target.with_stem(f"{target.stem}-{number}")


def _write(place: Path, content: bytes) -> str:
    from contracts.storage import write_bytes

    try:
        write_bytes(str(place), content)
    except OSError as err:
        raise PlatformError(
            f"cannot write {place}", detail=str(err), fix="give a file in a folder that is there", code="bad_input"
        ) from err
    return str(place)


def _draw_boxes(draw: str, images: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write each image with its boxes.

    Raises:
        PlatformError: ``code="bad_input"``: the answers have no boxes, or the folder is not there.
    """
    from contracts.engine import MAX_PIXELS
    from contracts.images import open_image, upright
    from pipelines.evaluation.box_pictures import drawn

    if any("objects" not in one for one in predictions):
        raise PlatformError(
            "the answers have no boxes to draw", fix="leave --draw out, or ask a model of detection", code="bad_input"
        )
    target, written = Path(draw).expanduser(), []
    names = sorted({item["label"] for one in predictions for item in one["objects"]})
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
    for number, (file, one) in enumerate(zip(images, predictions, strict=True), 1):
        image = upright(open_image(Path(file).expanduser().read_bytes(), MAX_PIXELS))
        boxes = [
            (item["box"], f"{item['label']} {item['score']:.2f}", colours[item["label"]]) for item in one["objects"]
        ]
        place = _numbered(target, number)
        factor = max(1, -(-_LEAST_SIDE // min(image.size)))  # a small one becomes larger, or labels would cover it
        large = image.convert("RGB").resize((image.width * factor, image.height * factor))
        buffer = io.BytesIO()
        drawn(large, reversed(boxes), factor).save(buffer, _FORMATS[place.suffix.lower()])
        written.append(_write(place, buffer.getvalue()))
    return written
