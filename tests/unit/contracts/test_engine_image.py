"""Files become the pixels that a graph was trained on, and hostile ones an error that names them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from contracts.bundle import Bundle, BundleDocument
from contracts.engine import DecodingEngine, UnreadableError, vector_of
from contracts.engines import load_engine
from contracts.engines.onnx_image import patch_of
from contracts.errors import PlatformError
from contracts.images import ImageSpec
from tests.image_bundle import image_source, picture, png_header

FIELDS = {
    "name": "shades",
    "task": "shades",
    "recipe": "r",
    "modality": "image",
    "engine": "onnx",
    "signature": {"inputs": [{"name": "image", "dtype": "bytes"}], "classes": ["dark", "bright"]},
    "gate": {"passed": True, "checks": []},
    "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
    "files": {},
}


def test_jpeg_is_decoded_by_the_fast_library() -> None:
    assert features.check_feature("libjpeg_turbo"), "this Pillow was built without it"


def engine_of(folder: Path, **spec: Any) -> Any:
    """An engine whose graph answers with the mean of the pixels: the probability of "bright"."""
    image_source(folder, **spec)
    return load_engine(Bundle(folder, BundleDocument.model_validate(FIELDS), "digest"))


def bright(engine: Any, *files: bytes) -> list[float]:
    column = np.empty(len(files), object)
    column[:] = files
    return [float(value) for value in engine.predict({"image": column})[:, 1]]


def decoded(engine: Any, file: bytes) -> Any:
    column = np.empty(1, object)
    column[0] = file
    return engine.decode({"image": column})["image"][0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return engine_of(tmp_path_factory.mktemp("image"), width=8, height=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_gives_the_same_shade(engine: Any, kind: str, mode: str) -> None:
    assert isinstance(engine, DecodingEngine)
    files = [picture(shade, mode=mode, kind=kind) for shade in (0, 102, 255)]
    assert bright(engine, *files) == pytest.approx([0.0, 0.4, 1.0], abs=0.01)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("RGBA", (255, 255, 255, 255), 1.0),
        ("P", 0, 0.0),
        ("1", 1, 1.0),
        ("CMYK", (0, 0, 0, 0), 1.0),
        ("LA", (51, 255), 0.2),
    ],
)
def test_every_mode_becomes_the_model_s_own(engine: Any, mode: str, color: Any, expected: float) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 5), color).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert bright(engine, buffer.getvalue()) == pytest.approx([expected], abs=0.01)


def test_gray_of_sixteen_bits_is_scaled_and_not_cut(engine: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 5), 257 * 51, np.uint16)).save(buffer, "PNG")
    assert bright(engine, buffer.getvalue()) == pytest.approx([0.2], abs=0.005)


def test_a_graph_without_a_vector_has_none(engine: Any) -> None:
    assert vector_of(engine) is None


@pytest.mark.parametrize("rows", ["rows", 3])
def test_a_vector_is_of_the_pixels_of_one_row(tmp_path: Path, rows: Any) -> None:
    engine = engine_of(tmp_path, width=8, height=4, rows=rows, vector=True)
    vector = vector_of(engine)
    assert vector is not None
    assert vector(decoded(engine, picture((255, 51, 0)))) == pytest.approx([1.0, 0.2, 0.0])
    assert bright(engine, picture(102), picture(51)) == pytest.approx([0.4, 0.2])


def half(width: int, height: int, *, kind: str = "PNG", orientation: int = 0) -> bytes:
    """Black on the left, white on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_pictures_are_turned_as_their_camera_says(engine: Any) -> None:
    plain, turned = decoded(engine, half(64, 32)), decoded(engine, half(64, 32, kind="JPEG", orientation=6))
    assert plain[:, 0].max() < 50 < 200 < plain[:, -1].min()
    assert turned[0].max() < 50 < 200 < turned[-1].min()  # by a quarter to the right: black is above


def test_the_middle_is_cut_before_it_is_resized(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, width=4, height=4, fit="crop", crop_share=0.5, resample="nearest")
    assert engine.decode({"image": np.array([half(40, 8)], object)})["image"].shape == (1, 4, 4, 3)
    assert decoded(engine, half(40, 8))[0, :, 0].tolist() == [0, 0, 255, 255]
    line = io.BytesIO()
    Image.new("L", (1_000_000, 1)).save(line, "PNG")
    assert decoded(engine, line.getvalue()).shape == (4, 4, 3)


def test_values_are_normalised_per_channel_in_both_layouts(tmp_path: Path) -> None:
    red = picture((255, 0, 0))
    for layout in ("channels_first", "channels_last"):
        engine = engine_of(tmp_path / layout, layout=layout, mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 1.0))
        assert bright(engine, red) == pytest.approx([1 / 3])  # (1 + 0 + 0) / 3


def test_scores_are_made_probabilities_when_the_graph_does_not(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, softmax=True)
    assert bright(engine, picture(255)) == pytest.approx([1 / (1 + np.exp(-1.0))])  # scores 0 and 1


def test_many_images_are_run_in_pieces_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.engines.onnx_image.WORKING_NUMBERS", 8 * 4 * 3 * 2)
    shades = [0, 51, 102, 153, 255]
    for rows in ("rows", 2):  # a graph may be made for two rows, no more and no less
        engine = engine_of(tmp_path / str(rows), width=8, height=4, rows=rows)
        got = bright(engine, *(picture(shade) for shade in shades))
        assert got == pytest.approx([shade / 255 for shade in shades], abs=1e-6)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (b"%PDF-1.7", "is no image"),
        (b"", "is no image"),
        (picture(9, kind="PNG")[:-30], "is no image"),
        (picture(9, kind="JPEG", size=64)[:400], "is no image"),
        (png_header(6000, 5000), "has 30000000 pixels, 24999936 of the 25000000"),
        (png_header(40_000, 40_000), "has more than"),
    ],
    ids=["no image", "empty", "PNG cut off", "JPEG cut off", "large", "huge"],
)
def test_what_is_no_usable_image_is_named_by_row(engine: Any, file: bytes, said: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        engine.decode({"image": np.array([picture(0), file], object)})
    [(row, name, text)] = caught.value.errors
    assert (row, name) == (1, "image")
    assert said in text


def test_pixels_are_counted_over_the_whole_request(engine: Any) -> None:
    files = np.array([picture(0, size=40)] * 3, object)
    assert len(engine.decode({"image": files}, 4800)["image"]) == 3
    with pytest.raises(UnreadableError) as caught:
        engine.decode({"image": files}, 4799)
    assert [row for row, _, _ in caught.value.errors] == [2]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_files_are_answered_or_refused_and_nothing_else(engine: Any, data: st.DataObject) -> None:
    file = bytearray(picture(77, kind=data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"])), size=24))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableError):
        assert 0 <= bright(engine, bytes(file))[0] <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [({"mean": (0.1, 0.2)}, "mean and std"), ({"input": "other"}, "expected other"), ({"width": 0}, "width")],
)
def test_a_bundle_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    image_source(tmp_path)
    text = ImageSpec(width=8, height=8).model_copy(update=change).model_dump_json()
    (tmp_path / "model" / "image.json").write_text(text)
    with pytest.raises(PlatformError, match="image model refused") as caught:
        load_engine(Bundle(tmp_path, BundleDocument.model_validate(FIELDS), "digest"))
    assert said in caught.value.detail


@pytest.mark.parametrize(("high", "wide"), [(32, 32), (4, 8), (50, 33)])
def test_reasons_name_patches_that_can_be_found_again(tmp_path: Path, high: int, wide: int) -> None:
    engine = engine_of(tmp_path, width=wide, height=high)
    image = np.zeros((high, wide, 3), np.uint8)
    image[: high // 4, wide - wide // 4 :] = 255
    reasons = engine.explain({"image": image[None]}, 100)[0]
    patches = [patch_of(one.feature, high, wide) for one in reasons]
    covered = np.zeros((high, wide), int)
    for top, bottom, left, right in patches:
        covered[top:bottom, left:right] += 1
    assert (covered == 1).all(), "they are the whole image, each place once"
    top, bottom, left, right = patches[0]
    assert image[top:bottom, left:right].any(), "what makes the mean bright is foremost"
    with pytest.raises(ValueError, match="names no patch"):
        patch_of("image", high, wide)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("scale", [{"mean": (0.5,), "std": (0.25,)}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.1)}])
def test_pixels_are_scaled_by_channel_and_stay_what_they_are(layout: Any, scale: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    before = pixels.copy()
    found = ImageSpec(width=4, height=5, layout=layout, **scale).normalised(pixels)
    expected = (before.astype(np.float32) / np.float32(255) - np.float32(scale["mean"])) / np.float32(scale["std"])
    assert np.array_equal(found, expected.transpose(0, 3, 1, 2) if layout == "channels_first" else expected)
    assert found.flags.c_contiguous
    assert np.array_equal(pixels, before)
