"""Object storage against a real S3 server over a folder."""

from __future__ import annotations

import filecmp
import itertools
import lzma
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts import storage
from contracts.audit import AuditLog
from contracts.errors import PlatformError
from contracts.pii.finders import open_finder, pinned
from contracts.ports import free_port
from tests.box_sources import BOX, voc, xml
from tests.chain import Chain
from tests.problem_bundles import name_tagger
from tests.unit.pipelines.test_image_data import classes, rows_of
from tests.unit.pipelines.test_image_data import folder as folder_of

CLUSTER = os.environ.get("FAIRLEAD_TEST_CLUSTER", "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CLUSTER, reason="FAIRLEAD_TEST_CLUSTER does not name the folder with the S3 server"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("s3")
    program = home / "versitygw"
    program.write_bytes(lzma.decompress((Path(CLUSTER) / "bin" / "versitygw.xz").read_bytes()))
    program.chmod(0o755)
    (home / "data" / "models").mkdir(parents=True)
    port = free_port()
    env = {"ROOT_ACCESS_KEY": "user", "ROOT_SECRET_KEY": "secret-of-a-test", "VGW_PORT": f"127.0.0.1:{port}"}
    with subprocess.Popen([str(program), "posix", str(home / "data")], env=env, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-a-test")
    return "s3://models/bundles/churn"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "model").mkdir(parents=True)
    (made / "bundle.json").write_text("{}")
    (made / "model" / "model.txt").write_bytes(os.urandom(100_000))
    return made


def test_what_is_uploaded_comes_back(store: str, folder: Path, tmp_path: Path) -> None:
    storage.upload(folder, store, last="bundle.json")
    back = storage.download(store, tmp_path / "back", last="bundle.json")
    assert (back / "model" / "model.txt").read_bytes() == (folder / "model" / "model.txt").read_bytes()
    assert storage.list_names(store) == ["bundle.json", "model"]
    assert storage.list_names("s3://models") == ["bundles"]
    assert storage.exists(store)
    assert not storage.exists(store[:-1])  # a part of a name is another name


def test_an_incomplete_upload_is_not_found(store: str, tmp_path: Path) -> None:
    storage.write_bytes(store + "-2/model/model.txt", b"x")
    with pytest.raises(PlatformError) as err:
        storage.download(store + "-2", tmp_path / "back", last="bundle.json")
    assert err.value.code == "not_found"


def test_bytes_are_read_back_and_what_is_missing_is_named(store: str) -> None:
    storage.write_bytes(store + "/note", b"1")
    assert storage.read_bytes(store + "/note") == b"1"
    with pytest.raises(PlatformError, match="note2") as err:
        storage.read_bytes(store + "/note2")
    assert err.value.code == "not_found"


def test_of_writers_that_want_one_name_one_gets_it_and_their_audit_log_is_one_chain(store: str) -> None:
    def several(writer: int) -> list[int]:
        log, actor = AuditLog(f"{store}/audit"), f"writer:{writer}"
        return [log.append(actor=actor, action="promote", subject="fraud").sequence for _ in range(5)]

    with ThreadPoolExecutor(4) as writers:
        numbers = list(itertools.chain(*writers.map(several, range(4))))
    assert sorted(numbers) == list(range(1, 21))
    assert AuditLog(f"{store}/audit").verify().intact
    assert storage.write_new(f"{store}/audit/{1:012d}.json", b"another history") is False
    assert AuditLog(f"{store}/audit").verify().entries == 20


def test_a_missing_bucket_is_named(store: str) -> None:
    with pytest.raises(PlatformError, match="the bucket does not exist"):
        storage.list_names("s3://nobody/x")


def test_a_wrong_password_is_said(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    with pytest.raises(PlatformError, match="AWS_SECRET_ACCESS_KEY") as err:
        storage.read_bytes(store)
    assert err.value.code == "storage_denied", err.value.detail


def test_a_server_that_is_not_there_is_said(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(PlatformError, match="AWS_ENDPOINT_URL") as err:
        storage.exists(store)
    assert err.value.code == "storage_unreachable"


def test_a_file_larger_than_memory_may_take_is_sent_in_pieces(store: str, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    with source.open("wb") as file:
        for _ in range(40):
            file.write(os.urandom(5 * 2**20))
    code = (
        "import resource, sys; from pathlib import Path; from contracts import storage; told = []\n"
        "storage.exists(sys.argv[2])  # what the client itself takes\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "storage.upload_file(Path(sys.argv[1]), sys.argv[2], told.append)\n"
        "print(sum(told), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    target = storage.join(store, "rows.csv")
    done = subprocess.run([sys.executable, "-c", code, str(source), target], check=True, capture_output=True, text=True)
    sent, grown = map(int, done.stdout.split())
    assert sent == source.stat().st_size
    assert grown < 60 * 1024  # KiB, of 200 MiB
    back = storage.copy_here(target, tmp_path / "back")
    assert filecmp.cmp(back, source, shallow=False)


@pytest.mark.parametrize("task", ["images", "objects"])
def test_a_folder_of_images_is_a_source(store: str, tmp_path: Path, task: str) -> None:
    root = tmp_path / "source"
    if task == "images":
        folder_of(root, classes(8))
    else:
        voc(root, {f"i{at:02d}": xml((("cup", "pen")[at % 2], BOX)) for at in range(16)})
    for file in root.rglob("*"):
        if file.is_file():
            storage.write_bytes(f"{store}-{task}/{file.relative_to(root)}", file.read_bytes())
    found = []
    for source in (f"{store}-{task}/", str(root)):
        chain = Chain(task=task, home=tmp_path / str(len(found)), source=source)
        chain.dataset()
        found.append(rows_of(chain))
    assert len(found[0]) == 16
    assert found[0].equals(found[1])


def test_a_tagger_is_read_from_there(store: str, tmp_path: Path) -> None:
    storage.upload(name_tagger(tmp_path, anna="PER").path, f"{store}-tagger", last="bundle.json")
    finder = open_finder(f"{store}-tagger")
    assert finder is not None
    assert [(start, end, kind.name) for start, end, kind in finder.places(["Hello Anna"])[0]] == [(6, 10, "name")]
    assert pinned(f"{store}-tagger") == f"{store}-tagger#{finder.name}"
