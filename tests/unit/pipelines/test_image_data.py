"""Image files as data: what is refused and why, what is kept of a file, and near duplicates."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from contracts.bundle import write_bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.data import image_sources
from pipelines.data.image_files import inspected
from pipelines.data.image_sources import RefusedError
from pipelines.data.image_traits import near_groups, traits
from pipelines.data.schema import cast_column
from pipelines.data.value_format import as_numbers
from pipelines.steps.batch_score import batch_score
from pipelines.task import Column
from tests.chain import PASSED, Chain
from tests.image_bundle import SIGNATURE, image_source, picture, png_header

SECRET = b"<script>alert(1)</script>"


def photo(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth picture with enough in it to be told from another one."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


JPEG = saved(photo(), "JPEG")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jpg", b"", "is empty"),
        ("a.jpg", JPEG[: len(JPEG) // 2], "is cut off or damaged"),
        ("a.png", saved(photo(), "PNG")[:-40], "is cut off or damaged"),
        ("a.jpg", b"\x00\x01\x02 no picture", "is no image"),
        ("a.png", JPEG, "is JPEG, its name says .png"),
        ("a.txt", JPEG, "is JPEG, its name says .txt"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "is SVG"),
        ("a.png", png_header(10_000, 10_000), "has 100000000 pixels"),
        ("a.png", png_header(60_000, 60_000), "has more than"),
        ("a.tif", saved(photo(), "TIFF"), "is no image"),
    ],
    ids=["empty", "JPEG cut off", "PNG cut off", "noise", "JPEG as PNG", "as text", "SVG", "100 MP", "bomb", "TIFF"],
)
def test_what_is_no_image_to_learn_from_is_refused_with_its_reason(name: str, content: bytes, said: str) -> None:
    with pytest.raises(RefusedError, match=said.replace(".", r"\.")):
        inspected(name, content)


def test_odd_images_are_taken() -> None:
    deep = Image.fromarray(np.full((4, 4), 51 * 256, np.uint16))
    frames = [photo(1), photo(2)]
    odd = {
        "cmyk.jpg": saved(photo().convert("CMYK"), "JPEG"),
        "deep.png": saved(deep, "PNG"),
        "palette.gif": saved(photo(), "GIF"),
        "alpha.png": saved(photo().convert("RGBA"), "PNG"),
        "moving.webp": saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "moving.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "dot.png": picture(9, size=1),
        "no suffix": JPEG,
    }
    found = {name: inspected(name, content) for name, content in odd.items()}
    assert found["deep.png"]["brightness"] == pytest.approx(0.2, abs=0.01)
    assert (found["dot.png"]["width"], found["dot.png"]["height"]) == (1, 1)
    for name, one in found.items():
        kept = Image.open(io.BytesIO(one["content"]))
        assert getattr(kept, "n_frames", 1) == 1, name
        if name != "deep.png":
            assert np.array_equal(pixels(one["content"]), pixels(odd[name])), name


def test_metadata_is_dropped_and_the_turn_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    upright = inspected("a.jpg", saved(photo(), "JPEG", exif=exif, comment=SECRET, icc_profile=SECRET))
    assert np.array_equal(pixels(upright["content"]), pixels(JPEG))
    exif[0x0112] = 6  # turned by a quarter
    turned = inspected("a.jpg", saved(photo(), "JPEG", exif=exif) + SECRET)
    assert (turned["width"], turned["height"]) == (30, 40)
    assert np.array_equal(pixels(turned["content"]), np.rot90(pixels(JPEG), -1))
    text = PngImagePlugin.PngInfo()
    text.add_text("note", SECRET.decode())
    png = inspected("a.png", saved(photo(), "PNG", pnginfo=text, exif=exif) + SECRET)
    webp = inspected("a.webp", saved(photo(), "WEBP", exif=exif, lossless=True))
    for one in (upright, turned, png, webp):
        assert SECRET not in one["content"]
        assert not Image.open(io.BytesIO(one["content"])).getexif()


@settings(max_examples=25, deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
    st.booleans(),
    st.integers(1, 40),
)
def test_what_is_kept_shows_the_same_pixels_whatever_stands_behind(
    behind: bytes, kind: str, progressive: bool, side: int
) -> None:
    given_file = saved(photo(side, (side, side + 1)), kind, **({"progressive": progressive} if kind == "JPEG" else {}))
    suffix = {"JPEG": "jpg"}.get(kind, kind.lower())
    kept = inspected(f"a.{suffix}", given_file + behind)["content"]
    assert np.array_equal(pixels(kept), pixels(given_file))
    assert inspected("a", kept)["content"] == kept


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_damage_is_refused_or_read_and_never_anything_else(noise: bytes, at: int) -> None:
    damaged = JPEG[:at] + noise + JPEG[at + len(noise) :]
    with suppress(RefusedError):
        assert inspected("a.jpg", damaged)["width"] >= 1


def test_near_duplicates_are_grouped_and_others_are_not() -> None:
    def looked(image: Image.Image) -> tuple[str, str]:
        found = traits(image, saved(image, "PNG"))
        return found["sha256"], found["look"]

    other_format = Image.open(io.BytesIO(saved(photo(1), "JPEG", quality=60))).convert("RGB")
    shown = [photo(1), photo(1), photo(1, (80, 60)), other_format, photo(2), photo(3), Image.new("RGB", (9, 9))]
    digests, looks = zip(*map(looked, [*shown, Image.new("RGB", (9, 9), (1, 1, 1))]), strict=True)
    groups = near_groups(digests, looks)
    assert len(set(groups[:4])) == 1
    assert len(set(groups[3:])) == 5


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def classes(count: int) -> dict[str, bytes]:
    return {
        f"{name}/{at}.png": saved(photo(at + 100 * number), "PNG")
        for number, name in enumerate(("cat", "dog"))
        for at in range(count)
    }


def rows_of(chain: Chain) -> pd.DataFrame:
    parts = [pd.read_parquet(chain.path("dataset") / f"{name}.parquet") for name in ("train", "valid", "test")]
    return pd.concat(parts).sort_values("id", ignore_index=True)


def test_folder_archive_and_manifest_give_the_same_images(tmp_path: Path) -> None:
    files = classes(12)
    root = folder(tmp_path / "folder", files)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "README.md").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for name, content in files.items():
            packed.writestr(f"photos/{name}", content)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(root, "photos")
    lines = [f"{name},{name.split('/')[0]}" for name in files]
    (root / "list.csv").write_text("\n".join(["path,label", *lines]))
    table = pd.DataFrame({"image": [{"bytes": one, "path": ""} for one in files.values()]})
    table.assign(label=[name.split("/")[0] for name in files]).to_parquet(tmp_path / "a.parquet")
    found = {}
    for name in ("folder", "a.zip", "a.tar.gz", "folder/list.csv", "a.parquet"):
        chain = Chain(task="images", home=tmp_path / "homes" / name.replace("/", "-"), source=str(tmp_path / name))
        chain.dataset()
        found[name] = rows_of(chain).sort_values("row_key", ignore_index=True)[["row_key", "label", "image"]]
    for name, rows in found.items():
        assert rows.equals(found["folder"]), name


def test_bad_files_are_in_the_quarantine_by_name_and_copies_in_one_part(tmp_path: Path) -> None:
    files = classes(15)
    copies = {f"dog/copy{at}.jpg": saved(photo(3), "JPEG", quality=95 - at) for at in range(5)}
    bad = {"cat/empty.jpg": b"", "dog/a rather long name, to be found again by whoever reads this.png": JPEG}
    source = folder(tmp_path / "photos", {**files, **copies, **bad, "lost.jpg": JPEG})
    chain = Chain(task="images", home=tmp_path / "home", source=str(source), overrides={"data.max_bad_share": 0.2})
    chain.dataset()
    quarantine = pd.read_csv(chain.path("clean") / "quarantine.csv").fillna("")
    assert {row.file: row.reason for row in quarantine.itertuples()} == {
        "cat/empty.jpg": "is empty",
        "dog/a rather long name, to be found again by whoever reads this.png": "is JPEG, its name says .png",
        "lost.jpg": "has no class: it lies in no folder of one, or its row has no label",
    }
    part = {
        row: name
        for name in ("train", "valid", "test")
        for row in pd.read_parquet(chain.path("dataset") / f"{name}.parquet")["id"]
    }
    assert len(part) == 35
    assert len({part[name] for name in (*copies, "cat/3.png")}) == 1
    manifest = json.loads(chain.path("manifest.json").read_text())
    assert (manifest["rows"], manifest["rejected"], len(manifest["files"])) == (35, 3, 1)


def test_a_class_that_is_a_typing_error_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    files = classes(12)
    rows = [f"{name},{name.split('/')[0]}" for name in files]
    folder(tmp_path / "source", {**files, "a.png": saved(photo(901), "PNG"), "b.png": saved(photo(902), "PNG")})
    (tmp_path / "source" / "list.csv").write_text("\n".join(["path,label", *rows, "a.png,Dgo", "b.png,aeroplane"]))
    source = str(tmp_path / "source" / "list.csv")
    overrides: dict[str, Any] = {"data.max_bad_share": 0.1}
    free = Chain(task="images", home=tmp_path / "home", source=source, overrides=overrides)
    free.dataset("validate")
    bound = Chain(
        task="images", home=tmp_path / "home", source=source, overrides={**overrides, "data.classes": ["cat", "dog"]}
    )
    bound.dataset()
    assert bound.version != free.version, "it holds other images"
    quarantine = pd.read_csv(bound.path("clean") / "quarantine.csv")
    assert quarantine[["file", "reason"]].to_numpy().tolist() == [
        ["a.png", "has class 'Dgo', which is not among data.classes; the nearest is 'dog'"],
        ["b.png", "has class 'aeroplane', which is not among data.classes; accepted: cat, dog"],
    ]
    assert set(rows_of(bound)["label"]) == {"cat", "dog"}
    overrides |= {"data.classes": ["cat", "dog", "Dgo", "aeroplane"], "split.test_source": str(tmp_path / "test")}
    folder(tmp_path / "test", {"dogs/a.png": saved(photo(903), "PNG")})
    with pytest.raises(PlatformError, match=r"test source: dogs/a\.png has class 'dogs', .* the nearest is 'dog'"):
        Chain(task="images", home=tmp_path / "home", source=source, overrides=overrides).dataset()
    with pytest.raises(PlatformError, match=r"data\.classes is of tasks of images, and news is none"):
        Chain(task="news", home=tmp_path / "home", overrides={"data.classes": ["a"]}).dataset("ingest")


def test_a_bomb_in_an_archive_is_one_bad_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pipelines.data.image_sources.MAX_BYTES", 1 << 20)
    monkeypatch.setattr("pipelines.data.image_files.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in {**classes(12), "cat/bomb.png": bytes(20 << 20)}.items():
            packed.writestr(name, content)
    chain = Chain(task="images", home=tmp_path / "home", source=str(tmp_path / "a.zip"))
    chain.dataset("validate")
    quarantine = pd.read_csv(chain.path("clean") / "quarantine.csv")
    assert quarantine[["file", "reason"]].to_numpy().tolist() == [["cat/bomb.png", "is larger than 1 MB"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"PK no archive", "a.zip is a damaged archive"),
        ("a.tar", b"no archive", "a.tar is a damaged archive"),
        ("a.csv", b"path,label\n../secret.png,cat\n", "no image of .*a.csv can be read"),
        ("a.csv", b"path,label\nhttp://127.0.0.1/a.png,cat\n", "no image of .*a.csv can be read"),
        ("a.csv", b"path,kind\na.png,cat\n", "a.csv has no column 'label'"),
        ("a.csv", b"id,label\na.png,cat\n", "a.csv has no column 'with the paths of images'"),
        ("a.doc", b"x", "no images can be read from"),
    ],
)
def test_a_source_that_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / "secret.png").write_bytes(picture(3))
    place = tmp_path / "inside"
    folder(place, {name: content})
    with pytest.raises(PlatformError, match=said):
        Chain(task="images", home=tmp_path / "home", source=str(place / name)).dataset("ingest")


def test_a_folder_is_scored_by_file_and_a_bad_file_is_named(tmp_path: Path) -> None:
    image_source(tmp_path / "made")
    fields = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
    lineage = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
    bundle = write_bundle(tmp_path / "made", tmp_path / "bundles", {
        **fields, "signature": SIGNATURE, "lineage": lineage, "gate": PASSED
    })  # fmt: skip
    source = folder(tmp_path / "photos", {"a.png": picture(10), "deep/down/b.png": picture(240)})
    ends = Endpoints(home=str(tmp_path / "home")).resolved().model_dump_json()
    summary = batch_score(str(bundle.path), str(source), ends, str(tmp_path / "out"))
    scored = pd.read_parquet(tmp_path / "out" / "part-00000.parquet")
    assert dict(zip(scored["file"], scored["label_predicted"], strict=True)) == {
        "a.png": "dark", "deep/down/b.png": "bright",
    }  # fmt: skip
    assert summary["rows"] == 2
    assert "image" not in scored.columns
    (source / "deep" / "broken.png").write_bytes(picture(10)[:40])
    with pytest.raises(PlatformError, match=r"deep/broken\.png is"):
        batch_score(str(bundle.path), str(source), ends, str(tmp_path / "again"))


def test_strange_images_of_a_batch_are_flagged(tmp_path: Path) -> None:
    image_source(tmp_path / "made", ood=True)
    fields = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
    lineage = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
    bundle = write_bundle(tmp_path / "made", tmp_path / "bundles", {
        **fields, "signature": SIGNATURE, "lineage": lineage, "gate": PASSED
    })  # fmt: skip
    source = folder(tmp_path / "photos", {"a.png": picture(10), "b.png": picture(240)})
    ends = Endpoints(home=str(tmp_path / "home")).resolved().model_dump_json()
    summary = batch_score(str(bundle.path), str(source), ends, str(tmp_path / "out"))
    scored = pd.read_parquet(tmp_path / "out" / "part-00000.parquet")
    assert list(scored["ood_score"]) == pytest.approx([20 / 255, 480 / 255])
    assert [list(one) for one in scored["flags"]] == [[], ["out_of_distribution"]]
    assert summary["flags"] == {"out_of_distribution": 1}


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    from pipelines.data import image_files

    source = folder(tmp_path / "photos", classes(3))
    known = image_files.fingerprint

    def and_then(*given: Any) -> Any:
        found = known(*given)
        (source / "cat" / "0.png").write_bytes(picture(200))
        return found

    monkeypatch.setattr(image_files, "fingerprint", and_then)
    with pytest.raises(PlatformError, match="changed while it was read"):
        Chain(task="images", home=tmp_path / "home", source=str(source)).dataset("ingest")


def test_names_of_formats_are_those_that_are_read() -> None:
    from contracts.images import FORMATS

    assert set(image_sources.SUFFIXES.values()) == set(FORMATS)


def test_a_text_like_a_number_of_endless_size_is_none() -> None:
    """pandas ends the process at such an exponent, as digests of files have."""
    texts = ["1e2147483648", "11e6213559008017189b", "3.5", " 4 ", None, "inf"]
    found = as_numbers(pd.Series(texts, dtype=object))
    assert found[2:4].tolist() == [3.5, 4.0]
    assert found.isna().tolist() == [True, True, False, False, True, True]
    typed, wrong = cast_column(
        pa.chunked_array([pa.array(["1e2147483648", "x", "2"])]), Column(name="a", dtype="float64")
    )
    assert typed.to_pylist() == [None, None, 2.0]
    assert wrong.tolist() == [True, True, False]
