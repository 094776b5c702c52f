"""Images with boxes as data: VOC, COCO and manifests, and what is refused of them, with its reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from contracts.errors import PlatformError
from contracts.problems.detection import Truth, read_truth, write_truth
from pipelines.data.box_sources import entries, settled
from pipelines.data.image_sources import RefusedError
from pipelines.task import DataConfig
from tests.box_sources import BOX, SIZE, YOLO, coco, photo, read, voc, xml, yolo
from tests.chain import Chain


@pytest.mark.parametrize(
    ("label", "box", "said"),
    [
        ("cup", (20, 3, 2, 25), "object 1 (cup) has its corners swapped: left 20, top 3, right 2, bottom 25"),
        ("cup", (2, 25, 20, 3), "has its corners swapped"),
        ("cup", (2, 3, 2, 25), "object 1 (cup) has no area"),
        ("cup", (2, 3, 2, 3), "has no area"),
        ("cup", (50, 3, 60, 25), "reaches out of the image, which is 40x30"),
        ("cup", (-9, 3, 20, 25), "reaches out of the image"),
        ("cup", (-1.5, 3, 0, 25), "lies outside of the image"),
        ("cup", (float("nan"), 3, 20, 25), "a side that is no number"),
        ("", BOX, "object 1 has no class, or one that is not declared"),
    ],
)
def test_a_box_that_cannot_be_right_refuses_its_image(label: str, box: Any, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        settled([(label, box, False)], (0, 0), SIZE)
    assert said in str(caught.value)


def test_a_box_over_an_edge_by_a_rounding_is_cut() -> None:
    found = read_truth(settled([("cup", (-1, 3, 41, 31), True)], SIZE, SIZE))
    assert found == [Truth("cup", (0.0, 3.0, 40.0, 30.0), True)]


def test_an_annotation_of_another_size_refuses_its_image() -> None:
    with pytest.raises(RefusedError, match="is 40x30, its annotation is of an image of 30x40"):
        settled([], (30, 40), SIZE)


def test_voc_is_read_and_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = voc(
        tmp_path / "voc",
        {
            "a": xml(("cup", BOX), ("pen", (1, 1, 5, 5))),
            "b": xml(),
            "c": None,
            "d": "<annotation><object>",
            "e": xml(("cup", ("x", 1, 5, 5))),
            "f": '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + xml(),
            "g": xml(("", BOX)),
            "h": xml(size=(400, 300)),
        },
    )
    (root / "Annotations" / "missing.xml").write_text(xml())
    found = read(root)
    assert found["JPEGImages/a.jpg"] == [Truth("cup", BOX), Truth("pen", (1.0, 1.0, 5.0, 5.0))]
    assert found["JPEGImages/b.jpg"] == [], "an image without objects is a negative one"
    said = {name.rpartition("/")[2][:1]: text for name, text in found.items() if isinstance(text, str)}
    assert "has no annotation" in said["c"]
    assert "cannot be read" in said["d"]
    assert "cannot be read" in said["e"]
    assert "document type" in said["f"]
    assert "no class" in said["g"]
    assert "of an image of 400x300" in said["h"]
    assert "no image of its name" in found["missing"]
    (root / "ImageSets" / "Main" / "some.txt").write_text("b  1\na -1\n\n")
    assert list(read(root / "ImageSets" / "Main" / "some.txt")) == ["JPEGImages/b.jpg", "JPEGImages/a.jpg"]
    monkeypatch.chdir(root / "ImageSets" / "Main")
    assert list(read(Path("some.txt"))) == ["JPEGImages/b.jpg", "JPEGImages/a.jpg"]


def test_images_of_the_same_name_in_two_folders_keep_their_own_boxes(tmp_path: Path) -> None:
    for at, part in enumerate(("train", "valid")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.jpg").write_bytes(photo(at))
        (tmp_path / part / "a.xml").write_text(xml((part, BOX)))
    assert read(tmp_path) == {f"{part}/a.jpg": [Truth(part, BOX)] for part in ("train", "valid")}


def test_coco_is_read(tmp_path: Path) -> None:
    found = read(coco(tmp_path / "coco"))
    assert found["a.jpg"] == [Truth("cup", BOX), Truth("cup", (0.0, 0.0, 5.0, 5.0), True)]
    assert found["b.jpg"] == []
    assert "is not beside the file" in found["c.jpg"]


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({"category_id": 8, "bbox": [2, 3, 18, 22]}, "object 1 has no class, or one that is not declared"),
        ({"category_id": 7, "bbox": [2, 3, -18, 22]}, "corners swapped"),
        ({"category_id": 7, "bbox": [2, 3, 0, 22]}, "no area"),
        ({"category_id": 7, "bbox": [2, 3, 18]}, "no bbox of four numbers"),
        ({"category_id": 7, "bbox": None}, "no bbox of four numbers"),
        ({"category_id": 7, "bbox": [90, 3, 18, 22]}, "reaches out of the image"),
    ],
)
def test_an_object_of_coco_that_cannot_be_right_refuses_its_image(tmp_path: Path, annotation: Any, said: str) -> None:
    found = read(coco(tmp_path / "coco", annotations=[{"id": 1, "image_id": 0, **annotation}]))
    assert said in found["a.jpg"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"annotations": [{"id": 5, "image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]}]},
            "annotation 5 is of image 99",
        ),
        ({"images": "none"}, "TypeError"),
        ({"categories": [{"id": 1}]}, "KeyError: 'name'"),
    ],
)
def test_a_file_that_is_not_coco_says_what_is_wrong(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(PlatformError, match="has not the form of COCO") as caught:
        list(entries(str(coco(tmp_path / "coco", **changes)), "image", "label", DataConfig()))
    assert said in str(caught.value.detail)


def test_images_may_lie_behind_a_link(tmp_path: Path) -> None:
    file = coco(tmp_path / "coco")
    (tmp_path / "coco" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "coco" / "images").symlink_to(tmp_path / "elsewhere")
    assert read(file)["b.jpg"] == []


def test_no_image_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(photo(1))
    images = [{"id": 0, "file_name": "../../../secret.jpg"}]
    found = read(coco(tmp_path / "x" / "y" / "coco", images=images, annotations=[]))
    assert "is not beside" in found["../../../secret.jpg"]


def test_a_manifest_has_its_objects_as_json(tmp_path: Path) -> None:
    for at in range(3):
        (tmp_path / f"{at}.jpg").write_bytes(photo(at))
    label = write_truth([Truth("cup", BOX)])
    rows = [{"path": f"{at}.jpg", "boxes": text} for at, text in enumerate((label, "[]", "cup"))]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataConfig(columns={"label": "boxes"})
    found = list(entries(str(tmp_path / "all.jsonl"), "image", "label", data))
    assert [read_truth(one.settle(SIZE)) for one in found[:2] if one.settle] == [[Truth("cup", BOX)], []]
    with pytest.raises(RefusedError, match="objects that cannot be read"):
        found[2].settle(SIZE)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["nothing", "empty", "packed.zip"])
def test_a_source_without_annotations_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "packed.zip").write_bytes(b"PK")
    with pytest.raises(PlatformError, match=r"source not found|no annotations below|is damaged or cut off") as caught:
        list(entries(str(tmp_path / name), "image", "label", DataConfig()))
    assert caught.value.code == "bad_source"


def test_yolo_is_read_and_what_is_wrong_is_said(tmp_path: Path) -> None:
    given = {"a": YOLO, "b": "", "c": None, "d": "7 .5 .5 .2 .2", "e": "0 .1 .1 .2 .2 .3 .3", "f": "0 x .5 .2 .2"}
    more = {"g": "0 20 15 9 9", "h": "0 .5 .5 -.2 .2", "i": "0 nan .5 .2 .2", "j": "0 .5 .5 .2 .2 \n" * 70_000}
    root = yolo(tmp_path / "yolo", {**given, **more})
    (root / "labels" / "train" / "z.txt").write_text(YOLO)
    (root / "README.txt").write_text("0 words for people")
    found = read(root)
    (cup,) = (one for one in found["images/train/a.jpg"] if isinstance(one, Truth))
    assert (cup.label, cup.box) == ("cup", pytest.approx(BOX))
    assert found["images/train/b.jpg"] == [], "an empty file is an image without objects"
    said = {name.rpartition("/")[2][:1]: text for name, text in found.items() if isinstance(text, str)}
    assert "has no annotation" in said["c"]
    assert "has no class" in said["d"]
    assert "has 7 values in line 1" in said["e"]
    assert "no number in line 1" in said["f"]
    assert "has pixels in line 1" in said["g"]
    assert "corners swapped" in said["h"]
    assert "no number" in said["i"]
    assert "more than 1 MB" in said["j"]
    assert "no image of its name" in said["z"]
    assert len(found) == 11


@pytest.mark.parametrize(("names", "said"), [("path: x\n", "no names of classes"), ("a: [", "is no YAML")])
def test_yolo_without_names_is_refused(tmp_path: Path, names: str, said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        read(yolo(tmp_path, {"a": YOLO}, names))


def test_yolo_with_two_lists_of_names_is_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, {"a": YOLO})
    (root / "classes.txt").write_text("cup\npen\n")
    assert len(read(root)) == 1
    (root / "classes.txt").write_text("pen\ncup\n")
    with pytest.raises(PlatformError, match="name other classes"):
        read(root)


def test_a_data_set_keeps_negatives_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    some = {f"i{at:02d}": xml((("cup", "pen")[at % 2], BOX)) for at in range(24)}
    none = {f"n{at}": xml() for at in range(6)}
    root = voc(tmp_path / "voc", {**some, **none, "bad": xml(("cup", (20, 3, 2, 25)))})
    chain = Chain(task="objects", home=tmp_path / "home", source=str(root), overrides={"labels": {"cup": "mug"}})
    dataset = chain.dataset()
    parts = {name: pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 30
    whole = pd.concat(parts.values())
    assert (whole["label"] == "[]").sum() == 6
    assert set(whole["slice_objects"]) == {"0", "1-3"}
    for rows in parts.values():
        assert {one.label for text in rows["label"] for one in read_truth(text)} == {"mug", "pen"}
    quarantine = next((tmp_path / "home").rglob("quarantine.csv")).read_text()
    assert "bad.jpg" in quarantine
    assert "corners swapped" in quarantine


def test_an_object_of_a_class_that_is_a_typing_error_refuses_its_image(tmp_path: Path) -> None:
    some = {f"i{at:02d}": xml((("cup", "pen")[at % 2], BOX)) for at in range(24)}
    root = voc(tmp_path / "voc", {**some, "bad": xml(("cup", BOX), ("cpu", BOX))})
    overrides = {"data.classes": ["cup", "pen"]}
    chain = Chain(task="objects", home=tmp_path / "home", source=str(root), overrides=overrides)
    chain.dataset("validate")
    [row] = pd.read_csv(chain.path("clean") / "quarantine.csv").to_dict("records")
    assert row["file"] == "JPEGImages/bad.jpg"
    assert row["reason"] == "object 2 is of class 'cpu', which is not among data.classes; the nearest is 'cup'"


def test_images_near_those_of_the_test_source_are_no_training_images(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", {f"i{at:02d}": xml(("cup", (at, 3, 20, 25))) for at in range(12)})
    other = voc(tmp_path / "test", {"t": xml(("cup", BOX)), "u": xml(("cup", BOX))})
    for name, seed, quality in (("t", 3, 70), ("u", 99, 95)):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(photo(seed))).save(buffer, "JPEG", quality=quality)
        (other / "JPEGImages" / f"{name}.jpg").write_bytes(buffer.getvalue())
    overrides = {"split.test_source": str(other)}
    chain = Chain(task="objects", home=tmp_path / "home", source=str(root), overrides=overrides)
    dataset = chain.dataset()
    parts = {name: set(pd.read_parquet(dataset / f"{name}.parquet")["id"]) for name in ("train", "valid", "test")}
    assert parts["test"] == {"JPEGImages/t.jpg", "JPEGImages/u.jpg"}
    assert parts["train"] | parts["valid"] == {f"JPEGImages/i{at:02d}.jpg" for at in range(12) if at != 3}


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", {f"i{at:02d}": xml(("cup", (at, 3, 20, 25))) for at in range(12)})
    other = voc(tmp_path / "test", {"t": xml(("dog", BOX))})
    (other / "JPEGImages" / "t.jpg").write_bytes(photo(99))
    overrides = {"split.test_source": str(other)}
    chain = Chain(task="objects", home=tmp_path / "home", source=str(root), overrides=overrides)
    with pytest.raises(PlatformError, match="the test part has class 'dog'"):
        chain.dataset()
