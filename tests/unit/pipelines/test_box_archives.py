"""Archives with boxes in them are read as their folders; what would be unpacked elsewhere or without end is refused."""

from __future__ import annotations

import io
import stat
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest

from contracts.errors import PlatformError
from pipelines.data import unpacking
from tests.box_sources import BOX, YOLO, coco, photo, read, voc, xml, yolo


def packed(folder: Path, target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder).as_posix())
    else:
        with tarfile.open(target, "w:gz") as tar:
            tar.add(folder, ".")
    return target


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
def test_an_archive_is_read_as_its_folder(tmp_path: Path, form: str, ending: str) -> None:
    root = tmp_path / form
    {
        "voc": lambda: voc(root, {"a": xml(("cup", BOX)), "b": xml(), "c": None}),
        "coco": lambda: coco(root),
        "yolo": lambda: yolo(root, {"a": YOLO, "b": "", "c": None}),
    }[form]()
    found = read(packed(root, tmp_path / f"packed{ending}"))
    assert found == read(root)
    assert sorted(map(type, found.values()), key=str) == [list, list, str]
    assert not list(Path(tempfile.gettempdir()).glob("fairlead-boxes-*")), "nothing stays behind"


def hostile(target: Path, kind: str) -> Path:
    """An archive with a good image and annotation, and one member that is not to be unpacked."""
    good = {"a.jpg": photo(1), "a.xml": xml(("cup", BOX)).encode()}
    more = {"up": "../evil.xml", "absolute": "/tmp/evil.xml", "twice": "a.xml", "backslash": "..\\evil.xml"}
    more |= {"bomb": "bomb.xml", "both": "a.xml/b.xml", "windows": "c/..\\..\\x.jpg"}
    large = b"<" * (1 << 22) if kind == "bomb" else b"<"
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that stands twice
            for name, content in good.items():
                archive.writestr(name, content)
            if kind == "link":
                link = zipfile.ZipInfo("l.xml")
                link.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(link, "/etc/passwd")
            else:
                archive.writestr(more[kind], large)
        return target
    with tarfile.open(target, "w:gz") as tar:
        added = [] if kind in ("link", "hard") else [(more[kind], large)]
        for name, content in [*good.items(), *added]:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
        if kind in ("link", "hard"):
            item = tarfile.TarInfo("l.xml")
            item.type, item.linkname = (tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE), "/etc/passwd"
            tar.addfile(item)
    return target


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("up", "leads out of the archive"),
        ("absolute", "leads out of the archive"),
        ("backslash", "leads out of the archive"),
        ("windows", "leads out of the archive"),
        ("link", "is a link or a device"),
        ("hard", "is a link or a device"),
        ("twice", "stands twice"),
        ("both", "is a file and a folder"),
        ("bomb", "more than 50 times its size"),
    ],
)
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_what_would_be_unpacked_elsewhere_or_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str, ending: str
) -> None:
    if (kind, ending) == ("hard", ".zip"):
        pytest.skip("zip has no hard links")
    monkeypatch.setattr(unpacking, "_FREE", 1 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "below"))
    (tmp_path / "below").mkdir()
    with pytest.raises(PlatformError, match="is refused") as caught:
        read(hostile(tmp_path / f"packed{ending}", kind))
    assert said in caught.value.headline
    assert not list(tmp_path.rglob("evil*"))
    assert not list((tmp_path / "below").iterdir())


def test_a_locked_or_cut_archive_is_named(tmp_path: Path) -> None:
    whole = packed(voc(tmp_path / "voc", {"a": xml()}), tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PlatformError, match="damaged or cut off"):
        read(tmp_path / "cut.tar.gz")


def test_an_archive_of_coco_reads_no_image_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "below"))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "secret.jpg").write_bytes(photo(1))
    images = [{"id": 0, "file_name": "../secret.jpg"}, {"id": 1, "file_name": "../../secret.jpg"}]
    root = coco(tmp_path / "coco", images=images, annotations=[]).parent
    found = read(packed(root, tmp_path / "coco.zip"))
    assert all("is not beside" in str(said) for said in found.values())
    assert len(found) == 2
