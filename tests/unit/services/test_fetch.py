"""A pod gets the bundle that was asked for, whole, or an error that says what is wrong."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from services.server.fetch import fetch, main

Make = Callable[..., Bundle]


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle()


def test_a_bundle_is_fetched_and_proven(bundle: Bundle, tmp_path: Path) -> None:
    got = fetch(str(bundle.path), tmp_path / "pod" / "bundle", digest=bundle.digest)
    assert got.path == tmp_path / "pod" / "bundle"
    assert got.digest == bundle.digest
    assert [golden.inputs for golden in got.golden()] == [golden.inputs for golden in bundle.golden()]


def test_a_proven_folder_is_not_fetched_again(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    fetch(str(bundle.path), target, digest=bundle.digest)
    before = (target / "bundle.json").stat().st_ino
    fetch("/nowhere", target, digest=bundle.digest)
    assert (target / "bundle.json").stat().st_ino == before


def test_a_damaged_cache_is_fetched_again(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    fetch(str(bundle.path), target, digest=bundle.digest)
    (target / "golden.jsonl").write_text("")
    fetch(str(bundle.path), target, digest=bundle.digest)
    assert (target / "golden.jsonl").read_bytes() == (bundle.path / "golden.jsonl").read_bytes()


def test_another_bundle_than_the_one_asked_for_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="refused") as err:
        fetch(str(bundle.path), tmp_path / "bundle", digest="0" * 64)
    assert err.value.code == "bad_bundle"
    assert bundle.digest in err.value.detail
    assert not (tmp_path / "bundle").exists()


def test_a_changed_byte_is_refused_and_nothing_is_left(bundle: Bundle, tmp_path: Path) -> None:
    source = shutil.copytree(bundle.path, tmp_path / "store")
    (source / "golden.jsonl").write_text("{}\n")
    with pytest.raises(PlatformError, match="refused"):
        fetch(str(source), tmp_path / "pod" / "bundle", digest=bundle.digest)
    assert [p.name for p in (tmp_path / "pod").iterdir()] == [".lock-bundle"]


def test_a_bundle_that_is_published_later_is_waited_for(bundle: Bundle, tmp_path: Path) -> None:
    store = tmp_path / "store"
    thread = threading.Timer(0.2, lambda: shutil.copytree(bundle.path, tmp_path / "s").rename(store))
    thread.start()
    assert fetch(str(store), tmp_path / "bundle", wait=10).digest == bundle.digest


def test_what_is_wrong_is_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(tmp_path / "none"), "--to", str(tmp_path / "bundle")]) == 1
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["code"]) == ("fetch_failed", "not_found")
    assert "fairlead run" in line["fix"]
