"""Steps that read and write S3: the storage is replaced at its edge by a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError
from pipelines import code_version
from pipelines.data.origins import source_here
from pipelines.data.versions import MANIFEST, address
from pipelines.io.remote import folder_here, folder_kept
from pipelines.steps import ingest
from pipelines.steps.validate import validate


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``s3://bucket`` is this folder."""
    root = tmp_path / "bucket"
    root.mkdir()

    def at(uri: str) -> Path:
        return root / uri.removeprefix("s3://bucket").strip("/")

    def upload(folder: Path, uri: str, *, last: str) -> None:
        assert (folder / last).exists()
        shutil.copytree(folder, at(uri), dirs_exist_ok=True)

    def download(uri: str, folder: Path, *, last: str) -> Path:
        if not (at(uri) / last).exists():
            raise PlatformError(f"not found: {uri}", code="not_found")
        return Path(shutil.copytree(at(uri), folder))

    def write(uri: str, data: bytes) -> None:
        at(uri).parent.mkdir(parents=True, exist_ok=True)
        at(uri).write_bytes(data)

    def copy_here(uri: str, folder: Path) -> Path:
        return Path(shutil.copy(at(uri), folder))

    fakes: dict[str, Any] = {
        "exists": lambda uri: at(uri).exists(),
        "list_names": lambda uri: sorted(one.name for one in at(uri).iterdir()) if at(uri).is_dir() else [],
        "read_bytes": lambda uri: at(uri).read_bytes(),
        "write_bytes": write,
        "upload": upload,
        "download": download,
        "copy_here": copy_here,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(storage, name, fake)
    return root


@pytest.fixture
def source(bucket: Path, toy_frame: Any, toy_csv: Any) -> str:
    toy_csv(bucket / "rows.csv", toy_frame(60))
    return "s3://bucket/rows.csv"


def test_a_version_in_s3_is_made_once_and_found_by_its_source(
    bucket: Path, source: str, toy_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "manifest"
    made = ingest.ingest("toy", toy_config(), source, "s3://bucket/data", str(out))
    document = json.loads(out.read_text())
    assert (document["path"], document["source"]) == (f"s3://bucket/data/toy/{made}", source)
    assert address(str(out)) == f"s3://bucket/data/toy/{made}/{MANIFEST}"
    assert (bucket / "data" / "toy" / made / MANIFEST).exists()
    monkeypatch.setattr(ingest, "_fill", lambda *_: pytest.fail("the source was read again"))
    assert ingest.ingest("toy", toy_config(), source, "s3://bucket/data", str(out)) == made


def test_a_version_in_s3_is_checked_byte_for_byte_before_it_is_used(
    bucket: Path, source: str, toy_config: Any, tmp_path: Path
) -> None:
    out = tmp_path / "manifest"
    made = ingest.ingest("toy", toy_config(), source, "s3://bucket/data", str(out))
    report = validate("toy", toy_config(), address(str(out)), str(tmp_path / "clean"))
    assert report["good"] == 60
    part = bucket / "data" / "toy" / made / "part-00000.parquet"
    part.write_bytes(part.read_bytes() + b"x")
    with pytest.raises(PlatformError) as caught:
        validate("toy", toy_config(), address(str(out)), str(tmp_path / "clean"))
    assert caught.value.code == "missing_artifact"


def test_local_folders_and_sources_are_used_where_they_are(tmp_path: Path) -> None:
    with folder_here(str(tmp_path), last="any") as folder, source_here("") as built_in:
        assert (folder, built_in) == (tmp_path, "")


def test_other_code_than_the_run_was_started_with_is_refused() -> None:
    code_version.require("news", code_version.code_version("news").partition(".")[0] + ".other-libraries")
    with pytest.raises(PlatformError) as caught:
        code_version.require("news", "0123456789abcdef.x")
    assert caught.value.code == "other_code"
    assert "--image" in caught.value.fix


def test_a_folder_that_is_kept_begins_with_what_is_in_s3_and_is_copied_back(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "list_names", lambda uri: ["old.pt", "epoch.pt"])
    monkeypatch.setattr(
        storage, "copy_here", lambda uri, folder: [shutil.copy(p, folder) for p in (bucket / "c").iterdir()]
    )
    monkeypatch.setattr(storage, "remove", lambda uri: (bucket / uri.removeprefix("s3://bucket/")).unlink())
    (bucket / "c").mkdir()
    for name in ("old.pt", "epoch.pt"):
        (bucket / "c" / name).write_text("1")
    with folder_kept("s3://bucket/c") as kept:
        assert (Path(kept) / "epoch.pt").read_text() == "1"
        (Path(kept) / "epoch.pt").write_text("22")
        (Path(kept) / ".epoch.pt-half").write_text("2")
        (Path(kept) / "old.pt").unlink()
    assert {file.name: file.read_text() for file in (bucket / "c").iterdir()} == {"epoch.pt": "22"}


def test_a_storage_that_is_down_does_not_end_a_training(
    bucket: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(uri: str, data: bytes) -> None:
        raise PlatformError("the storage did not serve it")

    monkeypatch.setattr(storage, "list_names", lambda uri: [])
    monkeypatch.setattr(storage, "write_bytes", down)
    with folder_kept("s3://bucket/c") as kept:
        (Path(kept) / "epoch.pt").write_text("1")
    assert "checkpoints were not copied to s3://bucket/c: the storage did not serve it" in caplog.text


def test_a_folder_of_this_machine_is_kept_as_it_is(tmp_path: Path) -> None:
    with folder_kept(str(tmp_path)) as kept:
        assert kept == str(tmp_path)
