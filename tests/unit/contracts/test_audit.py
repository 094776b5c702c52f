"""The audit log: one chain whoever appends, every change is found, and a crash is no change."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import storage
from contracts.audit import START, AuditLog
from contracts.errors import PlatformError
from tests.s3_folder import FolderClient

ANY_FOLDER = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def written(folder: Path, entries: int = 4) -> AuditLog:
    log = AuditLog(folder)
    for number in range(entries):
        log.append(
            actor="user:ada", action="promote", subject=f"fraud:{number}", reason="因为", evidence={"psi": 0.3 * number}
        )
    return log


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    written(folder)
    return folder


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    client = FolderClient(tmp_path / "s3")
    (client.root / "lake").mkdir(parents=True)
    monkeypatch.setattr(storage, "_client", lambda: client)
    return "s3://lake/audit"


def test_an_entry_says_who_what_when_why_and_follows_the_one_before(tmp_path: Path) -> None:
    first, second = written(tmp_path, 2).read()
    assert (first.sequence, first.previous, second.previous) == (1, START, first.hash)
    assert (second.actor, second.action, second.subject, second.reason) == ("user:ada", "promote", "fraud:1", "因为")
    assert second.evidence == {"psi": 0.3}
    assert second.time.endswith("+00:00")
    assert AuditLog(tmp_path).verify().intact


def test_what_is_read_is_of_a_subject_and_from_a_moment_on(tmp_path: Path) -> None:
    log = written(tmp_path, 3)
    log.append(actor="controller", action="start_run", subject="news")
    assert [entry.subject for entry in log.read(subject="fraud")] == ["fraud:0", "fraud:1", "fraud:2"]
    assert [entry.subject for entry in log.read(subject="fraud:1")] == ["fraud:1"]
    assert [entry.subject for entry in log.read(since=log.read()[-1].time)][-1:] == ["news"]
    assert log.read(since="2999-01-01") == []
    with pytest.raises(PlatformError, match="not a moment: 'yesterday'"):
        log.read(since="yesterday")


def test_evidence_of_any_kind_is_kept_as_json(tmp_path: Path) -> None:
    odd: dict[Any, Any] = {"nan": float("nan"), "path": tmp_path, 3: (1, 2), "half": "\ud83d"}
    log = AuditLog(tmp_path)
    log.append(actor="a", action="b", subject="c", evidence=odd)
    assert log.read()[0].evidence == {"nan": None, "path": str(tmp_path), "3": [1, 2], "half": "?"}
    assert log.verify().intact


@ANY_FOLDER
@given(at=st.integers(0), change=st.integers(1, 255), name=st.sampled_from(["audit.jsonl", "audit.jsonl", "head.json"]))
def test_any_byte_that_is_changed_is_found(four: Path, tmp_path: Path, at: int, change: int, name: str) -> None:
    folder = shutil.copytree(four, tmp_path / "copy", dirs_exist_ok=True)
    data = bytearray((folder / name).read_bytes())
    at %= len(data)
    data[at] ^= change
    (folder / name).write_bytes(data)
    verdict = AuditLog(folder).verify()
    assert not verdict.intact
    if name == "audit.jsonl":
        assert verdict.broken == data[:at].count(b"\n") + 1


@ANY_FOLDER
@given(order=st.lists(st.sampled_from([0, 1, 2, 3]), max_size=5))
def test_entries_that_are_removed_repeated_or_reordered_are_named(four: Path, tmp_path: Path, order: list[int]) -> None:
    folder = shutil.copytree(four, tmp_path / "copy", dirs_exist_ok=True)
    lines = (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "audit.jsonl").write_bytes(b"".join(lines[at] for at in order))
    verdict = AuditLog(folder).verify()
    whole = next((at for at, found in enumerate(order) if found != at), len(order))
    assert verdict.intact == (order == [0, 1, 2, 3])
    assert verdict.broken == (None if verdict.intact else whole + 1)
    if whole < 3 and whole in order[whole:]:
        assert "not in its place" in verdict.reason
    elif not verdict.intact and order[whole : whole + 1] > [whole]:
        assert "missing" in verdict.reason


def test_a_line_that_a_crash_tore_is_no_change_and_the_next_entry_takes_its_place(tmp_path: Path) -> None:
    log = written(tmp_path)
    file, head = tmp_path / "audit.jsonl", tmp_path / "head.json"
    before, counted = file.read_bytes(), head.read_bytes()
    log.append(actor="a", action="never told", subject="fraud")
    whole = file.read_bytes()
    head.write_bytes(counted)
    for size in (len(before) + 1, len(whole) - 1):
        file.write_bytes(whole[:size])
        verdict = log.verify()
        assert (verdict.intact, verdict.torn, verdict.entries) == (True, True, 4)
    assert log.append(actor="a", action="next", subject="fraud").sequence == 5
    assert (log.verify().intact, log.verify().torn, log.verify().entries) == (True, False, 5)


def test_a_last_line_that_was_told_and_is_cut_is_a_change_and_nothing_follows_it(tmp_path: Path) -> None:
    log = written(tmp_path)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    verdict = log.verify()
    assert (verdict.intact, verdict.broken, verdict.torn) == (False, 4, True)
    assert verdict.reason == "it is cut off: 4 entries were written"
    with pytest.raises(PlatformError) as err:
        log.append(actor="a", action="b", subject="c")
    assert err.value.code == "audit_broken"


def test_an_entry_whose_writer_died_before_it_counted_it_is_kept(tmp_path: Path) -> None:
    log = written(tmp_path, 1)
    counted = (tmp_path / "head.json").read_bytes()
    log.append(actor="a", action="b", subject="c")
    (tmp_path / "head.json").write_bytes(counted)
    assert log.append(actor="a", action="d", subject="c").sequence == 3
    assert log.verify().intact


def test_a_log_without_its_head_is_not_taken_for_whole(tmp_path: Path) -> None:
    log = written(tmp_path)
    (tmp_path / "head.json").unlink()
    assert log.verify().reason == "head.json is missing, or not as it was written"


def _append(folder: Path, actor: str) -> None:
    for number in range(25):
        AuditLog(folder).append(actor=actor, action="a", subject=str(number))


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_append, args=(tmp_path, f"process:{number}")) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    entries = AuditLog(tmp_path).read()
    assert AuditLog(tmp_path).verify().intact
    for number in range(3):
        told = [entry.subject for entry in entries if entry.actor == f"process:{number}"]
        assert told == [str(n) for n in range(25)]


def test_writers_in_s3_make_one_chain_and_a_missing_object_is_named(bucket: str, tmp_path: Path) -> None:
    def several(writer: int) -> None:
        for number in range(8):
            AuditLog(bucket).append(actor=str(writer), action="a", subject=str(number))

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(several, range(4)))
    log = AuditLog(bucket)
    assert (log.verify().intact, log.verify().entries) == (True, 32)
    assert sorted((e.actor, e.subject) for e in log.read()) == [(str(w), str(n)) for w in range(4) for n in range(8)]
    storage.remove(f"{bucket}/{7:012d}.json")
    assert (log.verify().broken, log.verify().reason) == (7, "it is missing: number 8 is there")


def test_a_put_that_arrived_and_is_tried_again_makes_one_entry(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = storage.write_new

    def arrives_and_says_no(uri: str, data: bytes) -> bool:
        put(uri, data)
        return False

    monkeypatch.setattr(storage, "write_new", arrives_and_says_no)
    log = AuditLog(bucket)
    assert log.append(actor="a", action="b", subject="c").sequence == 1
    assert [entry.action for entry in log.read()] == ["b"]


def test_a_store_that_is_away_says_so(bucket: str) -> None:
    storage._client().fails = True
    with pytest.raises(PlatformError) as err:
        AuditLog(bucket).append(actor="a", action="b", subject="c")
    assert err.value.code == "storage_unreachable"


def test_a_head_that_lags_behind_is_caught_up(bucket: str, tmp_path: Path) -> None:
    log = AuditLog(bucket)
    log.append(actor="a", action="b", subject="c")
    head = storage.read_bytes(f"{bucket}/head.json")
    log.append(actor="a", action="b", subject="c")
    storage.write_bytes(f"{bucket}/head.json", head)
    assert log.append(actor="a", action="b", subject="c").sequence == 3
    assert json.loads(storage.read_bytes(f"{bucket}/head.json"))["sequence"] == 3
    assert log.verify().intact
