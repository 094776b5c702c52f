"""Object storage over a local folder; tests/integration/test_storage.py does the same with a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts import storage
from contracts.errors import PlatformError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "model").mkdir(parents=True)
    (made / "bundle.json").write_text("{}")
    (made / "model" / "model.txt").write_text("weights")
    return made


def test_what_is_uploaded_comes_back(folder: Path, tmp_path: Path) -> None:
    store = storage.join(str(tmp_path), "store", "churn")
    storage.upload(folder, store, last="bundle.json")
    back = storage.download(store, tmp_path / "back", last="bundle.json")
    assert (back / "model" / "model.txt").read_text() == "weights"
    assert storage.list_names(store) == ["bundle.json", "model"]
    assert storage.exists(storage.join(store, "model"))


def test_an_upload_that_was_never_completed_is_not_found(folder: Path, tmp_path: Path) -> None:
    (folder / "bundle.json").unlink()
    with pytest.raises(PlatformError) as err:
        storage.download(str(folder), tmp_path / "back", last="bundle.json")
    assert err.value.code == "not_found"
    assert not (tmp_path / "back").exists()


def test_a_download_replaces_what_was_there_as_a_whole(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "cache"
    target.mkdir()
    (target / "stale").write_text("old")
    storage.download(str(folder), target, last="bundle.json")
    assert storage.list_names(str(target)) == ["bundle.json", "model"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_bytes_are_written_whole_and_a_missing_file_is_named(tmp_path: Path) -> None:
    file = storage.join(str(tmp_path), "a", "b.txt")
    storage.write_bytes(file, b"1")
    storage.write_bytes(file, b"22")
    assert storage.read_bytes(file) == b"22"
    assert storage.list_names(str(tmp_path / "a")) == ["b.txt"]
    with pytest.raises(PlatformError, match=r"nothing\.txt"):
        storage.read_bytes(str(tmp_path / "nothing.txt"))


def test_a_file_is_copied_whole_and_says_how_much(tmp_path: Path) -> None:
    source, told = tmp_path / "rows.csv", list[int]()
    source.write_bytes(b"x" * 100_000)
    target = storage.join(str(tmp_path), "store", "rows.csv")
    storage.upload_file(source, target, told.append)
    assert (storage.read_bytes(target), sum(told)) == (source.read_bytes(), 100_000)
    assert storage.list_names(str(tmp_path / "store")) == ["rows.csv"]


@pytest.mark.parametrize(("uri", "remote"), [("s3://b/x", True), ("/tmp/x", False), ("folder", False)])
def test_only_s3_is_remote(uri: str, remote: bool) -> None:
    assert storage.is_remote(uri) is remote


def test_another_scheme_says_what_is_accepted() -> None:
    with pytest.raises(PlatformError, match=r"s3://bucket/prefix"):
        storage.exists("gs://bucket/x")


def test_parts_are_joined_with_one_slash() -> None:
    assert storage.join("s3://b/p/", "/x/", "y") == "s3://b/p/x/y"
    assert storage.join("/", "x") == "/x"


def test_an_address_without_a_bucket_is_refused() -> None:
    with pytest.raises(PlatformError, match="no bucket"):
        storage.read_bytes("s3:///key")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, "storage_denied"),
        ("RequestTimeout", 400, "storage_unreachable"),
    ],
)
def test_a_storage_that_is_busy_is_no_storage_that_refuses(code: str, status: int, expected: str) -> None:
    """A server that answers each request with that status."""
    import http.server
    import threading

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        with pytest.raises(PlatformError) as caught:
            storage.read_bytes("s3://bucket/key")
    server.shutdown()
    assert caught.value.code == expected


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.json"
    storage.write_bytes(str(file), b"before")

    def refused(*_: Any) -> None:
        raise OSError("no")

    monkeypatch.setattr("contracts.storage.os.replace", refused)
    with pytest.raises(OSError, match="no"):
        storage.write_bytes(str(file), b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("state.json", b"before")]
