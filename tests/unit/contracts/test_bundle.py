"""A bundle appears whole or not at all, and one changed byte is enough to refuse it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.bundle import Bundle, read_bundle, schema
from contracts.errors import PlatformError

Make = Callable[..., Bundle]


def test_a_written_bundle_reads_back_the_same(make_bundle: Make) -> None:
    bundle = make_bundle()
    again = read_bundle(bundle.path)
    assert again.document == bundle.document
    assert again.digest == bundle.digest
    assert next(again.golden()).expected == [0.2, 0.8]


def test_writing_the_same_content_again_gives_the_same_bundle(make_bundle: Make) -> None:
    assert make_bundle().path == make_bundle().path


def test_other_content_gives_another_bundle(make_bundle: Make) -> None:
    assert make_bundle().path != make_bundle(recipe="other").path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.data())
def test_any_changed_byte_is_refused(make_bundle: Make, tmp_path: Path, data: st.DataObject) -> None:
    bundle = make_bundle()
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle.path, copy)
    name = data.draw(st.sampled_from(sorted(bundle.document.files)))
    content = bytearray((copy / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(PlatformError) as caught:
        read_bundle(copy)
    assert caught.value.code == "bad_bundle"
    assert name in caught.value.detail


def test_a_changed_document_has_another_digest(make_bundle: Make) -> None:
    bundle = make_bundle()
    file = bundle.path / "bundle.json"
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    assert read_bundle(bundle.path).digest != bundle.digest


@pytest.mark.parametrize("name", ["model/model.txt", "bundle.json"])
def test_a_missing_file_is_named(make_bundle: Make, name: str) -> None:
    bundle = make_bundle()
    (bundle.path / name).unlink()
    with pytest.raises(PlatformError, match="bundle refused") as caught:
        read_bundle(bundle.path)
    assert f"{name} is missing" in caught.value.detail


def test_a_file_nobody_listed_is_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    (bundle.path / "model" / "extra.pkl").write_bytes(b"x")
    with pytest.raises(PlatformError) as caught:
        read_bundle(bundle.path)
    assert "model/extra.pkl is not listed" in caught.value.detail


def test_a_failed_write_leaves_nothing_behind(
    make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("contracts.bundle.shutil.copytree", full)
    with pytest.raises(PlatformError, match="could not write bundle churn") as caught:
        make_bundle()
    assert "No space left" in caught.value.detail
    assert list((tmp_path / "bundles" / "churn").iterdir()) == []


def test_the_committed_schema_is_the_current_one() -> None:
    committed = Path(__file__).parents[3] / "contracts" / "bundle.schema.json"
    assert json.loads(committed.read_text()) == schema(), "run: make schemas"
