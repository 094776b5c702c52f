"""The mark of a generated image: a manifest in its PNG file, and, where it is wanted, letters that people see.

The manifest has what the actions of C2PA say of a made asset (digital source type, generator, time, hash of the
content) as JSON in the text chunk `KEYWORD`. With a key its seal (HMAC-SHA256) shows that this service wrote it. It is
no C2PA manifest store: there is no certificate, and who copies the pixels alone loses it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYWORD = "fairlead.provenance"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"  # what C2PA calls made by a model
LETTERS = ("0110 111", "1001 010", "1111 010", "1001 010", "1001 111")  # AI
_LARGEST_CHUNK = 1 << 16  # bytes of a manifest that is read


def plain_png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels (height, width, channels) without a mark."""
    return _png(pixels, None)


def marked_png(pixels: NDArray[np.uint8], made: Mapping[str, Any], *, key: bytes = b"", visible: bool = False) -> bytes:
    """A PNG file with its manifest.

    Args:
        pixels: uint8, shape (height, width, channels).
        made: what the manifest says beside source type, time and hash: model, version, seed and so on.
        key: of the seal; without one there is none.  visible: write the letters AI into the lower right corner.
    """
    shown = with_letters(pixels) if visible else pixels
    manifest: dict[str, Any] = {
        "format": 1,
        "claim_generator": "fairlead",
        "digital_source_type": SOURCE,
        "action": "c2pa.created",
        **made,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "visible_mark": visible,
        "pixels_sha256": _digest(shown),
    }
    if key:
        manifest["seal"] = _seal(manifest, key)
    return _png(shown, json.dumps(manifest, ensure_ascii=False, separators=(",", ":")))


def read_mark(file: bytes) -> dict[str, Any]:
    """The manifest of a PNG file, whose pixels are those that it speaks of.

    Raises:
        PlatformError: ``code="bad_mark"``: it is no PNG file, has no manifest, or one of other pixels.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(file), formats=("PNG",))
        image.load()
    except (OSError, SyntaxError, ValueError) as err:
        raise _bad("is no PNG file", "give the file as the service answered it") from err
    text = getattr(image, "text", {}).get(KEYWORD, "")
    try:
        manifest = json.loads(text) if 0 < len(text) <= _LARGEST_CHUNK else None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise _bad(
            f"has no chunk {KEYWORD}", "give the file as the service answered it: copies of pixels lose the mark"
        )
    pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, -1)
    if manifest.get("pixels_sha256") != _digest(pixels):
        raise _bad("has other pixels than its manifest speaks of", "ask for the image again: this one was changed")
    return manifest


def is_sealed(manifest: Mapping[str, Any], key: bytes) -> bool:
    """Whether a manifest was sealed with this key."""
    seal = manifest.get("seal")
    return isinstance(seal, str) and hmac.compare_digest(seal, _seal(manifest, key))


def with_letters(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with the letters AI, black on white, in the lower right corner; as they are where there is no room."""
    shape = np.array([[one == "1" for one in line] for line in LETTERS])
    high, wide = pixels.shape[:2]
    scale = max(1, min(high, wide) // 64)
    framed = np.kron(np.pad(shape, 1), np.ones((scale, scale), bool))
    if framed.shape[0] > high or framed.shape[1] > wide:
        return pixels
    shown = pixels.copy()
    shown[high - framed.shape[0] :, wide - framed.shape[1] :] = np.where(framed, 0, 255)[..., None]
    return shown


def _png(pixels: NDArray[np.uint8], manifest: str | None) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = None
    if manifest is not None:
        info = PngInfo()
        info.add_itxt(KEYWORD, manifest)
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _digest(pixels: NDArray[np.uint8]) -> str:
    shape = ",".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(shape + b":" + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _seal(manifest: Mapping[str, Any], key: bytes) -> str:
    said = {name: value for name, value in manifest.items() if name != "seal"}
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


def _bad(detail: str, fix: str) -> PlatformError:
    return PlatformError("this image does not say where it comes from", detail=detail, fix=fix, code="bad_mark")
