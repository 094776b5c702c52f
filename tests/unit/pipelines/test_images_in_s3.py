"""Images that lie in S3, or are named by a file there; the storage is replaced at its edge by a folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from contracts.errors import PlatformError
from pipelines.data import box_sources, image_sources
from pipelines.data.image_files import inspected
from pipelines.data.image_sources import RefusedError
from pipelines.data.origins import source_here
from pipelines.evaluation import out_of_distribution
from pipelines.task import DataConfig
from pipelines.tasks import get_task
from tests.chain import Chain
from tests.image_bundle import picture
from tests.s3_folder import FolderClient
from tests.unit.pipelines.test_image_data import classes, folder, photo, rows_of, saved


def test_a_manifest_names_files_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    files = classes(24)
    folder(tmp_path / "lake" / "photos", files)
    rows = [f"s3://lake/photos/{name},{name.split('/')[0]}" for name in files]
    refused = ["s3://lake/photos/cat/none.png,cat", "https://example.com/a.png,cat"]
    source = tmp_path / "list.csv"
    source.write_text("\n".join(["path,label", *rows, *refused]))
    chain = Chain(task="images", home=tmp_path / "home", source=str(source))
    chain.dataset()
    quarantine = pd.read_csv(chain.path("clean") / "quarantine.csv")
    reasons = [
        "is not there",
        "is an address that is not read; accepted: s3://bucket/key, and paths below the manifest",
    ]
    assert quarantine["reason"].tolist() == reasons
    there = rows_of(chain)
    assert sorted(there["id"]) == sorted(row.split(",")[0] for row in rows)
    kept = dict(zip(there["id"], there["image"], strict=True))
    assert all(kept[f"s3://lake/photos/{name}"] == content for name, content in files.items())
    client.fails = True
    with pytest.raises(PlatformError, match="did not serve s3://lake/photos"):
        next(image_sources.entries(str(source), "image", "label", DataConfig())).read()


def test_a_manifest_in_s3_names_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    files = classes(2)
    rows = [f"./{name},{name.split('/')[0]}" for name in files]
    folder(tmp_path / "lake" / "deep", files)
    (tmp_path / "lake" / "secret.png").write_bytes(picture(3))
    outside = ["../secret.png,cat", f"{tmp_path}/lake/secret.png,cat", "cat/../../secret.png,cat"]
    (tmp_path / "lake" / "deep" / "list.csv").write_text("\n".join(["path,label", *rows, *outside, "cat/no.png,cat"]))
    with source_here("s3://lake/deep/list.csv") as here:
        found = list(image_sources.entries(here, "image", "label", DataConfig()))
        assert {one.name.removeprefix("./"): one.read() for one in found[:4]} == files
        for one in found[4:7]:
            with pytest.raises(RefusedError, match="lies outside of the folder of its manifest"):
                one.read()
        with pytest.raises(RefusedError, match="is not there"):
            found[7].read()
    assert "secret.png" not in client.read


def test_annotations_in_s3_without_their_images_are_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contracts.storage._client", lambda: FolderClient(tmp_path))
    folder(tmp_path / "lake" / "coco", {"all.json": b"{}"})
    with (
        source_here("s3://lake/coco/all.json") as here,
        pytest.raises(PlatformError) as refused,
    ):
        list(box_sources.entries(here, "image", "label", DataConfig()))
    assert "give the folder, s3://lake/coco/, or a manifest" in str(refused.value.fix)


def test_the_test_part_and_images_of_something_else_may_lie_in_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    source = folder(tmp_path / "photos", classes(6))
    near = saved(photo(3), "JPEG", quality=90)
    asked = {"cat/near.jpg": near, "dog/a.png": saved(photo(500), "PNG")}
    folder(tmp_path / "lake" / "test", asked)
    folder(tmp_path / "lake" / "other", {"b.png": picture(7)})
    overrides = {"split.test_source": "s3://lake/test", "abstain.other": "s3://lake/other/"}
    chain = Chain(task="images", home=tmp_path / "home", source=str(source), overrides=overrides)
    chain.dataset()
    rows = rows_of(chain)
    test = pd.read_parquet(chain.path("dataset") / "test.parquet")
    assert dict(zip(test["id"], test["image"], strict=True)) == {
        name: inspected(name, one)["content"] for name, one in asked.items()
    }
    assert len(rows) == 13
    assert "cat/3.png" not in set(rows["id"])
    assert out_of_distribution._others(get_task("images"), chain.settings, "image") == [picture(7)]
