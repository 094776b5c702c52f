"""Images that lie in S3, or are named by a file there; the storage is replaced at its edge by a folder."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from contracts.errors import PlatformError
from pipelines.data import image_sources
from pipelines.data.image_files import inspected
from pipelines.data.image_sources import RefusedError
from pipelines.data.origins import source_here
from pipelines.evaluation import out_of_distribution
from pipelines.task import DataConfig
from pipelines.tasks import get_task
from tests.box_sources import BOX, coco, read, voc, xml
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


@pytest.mark.parametrize("where", ["images", "annotations/../val", "annotations/../images/val"])
def test_images_of_cocos_json_in_s3_are_fetched_from_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    file = coco(tmp_path / "made")
    deep = "annotations/instances_val.json" if ".." in where else "found.json"
    folder(tmp_path / "lake" / "coco", {deep: file.read_bytes(), "b.txt": b"", "images/val/c.jpg.txt": b""})
    images = {one.name: one.read_bytes() for one in (tmp_path / "made" / "images").iterdir()}
    folder(tmp_path / "lake" / "coco" / where.removeprefix("annotations/../"), images)
    with source_here(f"s3://lake/coco/{deep}") as here:
        assert read(Path(here)) == read(file)
    assert {name.rpartition("/")[2] for name in client.read} == {deep.rpartition("/")[2], *images}


def test_names_in_cocos_json_lead_to_nothing_else_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    names = ["../secret.jpg", "/secret.jpg", "x/../../secret.jpg", "", "."]
    listed = [{"id": at, "file_name": name} for at, name in enumerate(names)]
    file = coco(tmp_path / "made", images=listed, annotations=[])
    folder(tmp_path / "lake", {"secret.jpg": picture(3), "coco/found.json": file.read_bytes()})
    with source_here("s3://lake/coco/found.json") as here:
        assert all("is not beside the file" in str(said) for said in read(Path(here)).values())
    assert client.read == ["coco/found.json"]


def test_a_list_of_voc_in_s3_names_images_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    root = voc(tmp_path / "lake" / "voc", {"a": xml(("cup", BOX)), "b": xml(), "c": None, "d": "<annotation>"})
    (root / "Annotations" / "e.xml").write_text(xml())
    some = root / "ImageSets" / "Main" / "some.txt"
    some.write_text("b  1\n" + "".join(f"{name}\n" for name in "acde"))
    with source_here("s3://lake/voc/ImageSets/Main/some.txt") as here:
        found = read(Path(here))
    assert list(found) == [*(f"JPEGImages/{name}.jpg" for name in "bacd"), "e"]
    assert found == read(some)
    some.write_text("../secret\n")
    folder(root, {"secret.xml": xml().encode(), "secret.jpg": picture(3)})
    with source_here("s3://lake/voc/ImageSets/Main/some.txt") as here:
        assert read(Path(here)) == {"../secret": "is annotated, and no image of its name is there"}
    assert not any("secret" in name for name in client.read)
    folder(tmp_path / "lake", {"some.txt": b"a\n"})
    with (
        source_here("s3://lake/some.txt") as here,
        pytest.raises(PlatformError, match=r"from s3://lake/some\.txt") as no,
    ):
        read(Path(here))
    assert "give such a list" in str(no.value.fix)


class _Waits(FolderClient):
    """Objects come only when eight are asked for at the same time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.together, self.most, self.now = threading.Barrier(8), 0, 0

    def download_file(self, bucket: str, key: str, target: str) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.together.wait(20)
        self.now -= 1
        super().download_file(bucket, key, target)


def test_objects_of_a_folder_are_fetched_eight_at_a_time_and_the_one_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _Waits(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    names = {f"{at % 3}/{at}.png": bytes([at]) for at in range(16)}
    folder(tmp_path / "lake" / "photos", names)
    with source_here("s3://lake/photos/") as here:
        assert {name: (Path(here) / name).read_bytes() for name in names} == names
    assert client.most == 8
    lost = FolderClient(tmp_path)
    fetch = FolderClient.download_file

    def fails(bucket: str, key: str, target: str) -> None:
        lost.fails = key.endswith("2/2.png")
        fetch(lost, bucket, key, target)

    monkeypatch.setattr(lost, "download_file", fails)
    monkeypatch.setattr("contracts.storage._client", lambda: lost)
    monkeypatch.setattr("contracts.storage._AT_ONCE", 1)
    with (
        pytest.raises(PlatformError, match=r"did not serve s3://lake/photos/2/2\.png"),
        source_here("s3://lake/photos"),
    ):
        pass


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
    told = json.loads((chain.path("dataset") / "dataset.json").read_text())["left_out"]["groups"]
    assert [(one["reason"], one["rows"]) for one in told] == [
        ("the image, or one that is nearly the same, stands in split.test_source too", 1)
    ]
    assert out_of_distribution._others(get_task("images"), chain.settings, "image") == [picture(7)]
