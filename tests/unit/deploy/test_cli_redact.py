"""``fairlead redact``: files and standard input, changed, looked at, and revealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.pii.redaction import KEY
from tests.problem_bundles import name_tagger

TEXT = "张三 13812345678\nno one\nmail a@b.org\n"


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    file = tmp_path / "letter.txt"
    file.write_text(TEXT)
    return file


def test_standard_input_to_standard_output(fairlead: Callable[..., Any]) -> None:
    said = fairlead("redact", stdin=TEXT)
    assert said.out == "张三 [PHONE]\nno one\nmail [EMAIL]\n"
    assert "Found phone 1, email 1" in said.err


def test_files_to_a_folder_and_back(
    fairlead: Callable[..., Any], letter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "1c" * 32)
    said = json.loads(fairlead("redact", str(letter), "-o", "encrypt", "--out", str(tmp_path / "to"), "--json").out)
    target = tmp_path / "to" / "letter.txt"
    assert said == {"files": [str(target)], "operator": "encrypt", "found": {"phone": 1, "email": 1}}
    assert "138" not in target.read_text()
    assert fairlead("redact", "--reveal", str(target)).out == TEXT
    again = fairlead("redact", str(letter), "--out", str(tmp_path / "to"))
    assert again.code == 1
    assert "is there already" in again.err
    monkeypatch.setenv(KEY, "1d" * 32)
    assert "cannot be decrypted" in fairlead("redact", "--reveal", str(target)).err


def test_a_look_tells_lines_and_not_values(fairlead: Callable[..., Any], letter: Path) -> None:
    said = fairlead("redact", "--check", str(letter))
    assert said.code == 3
    assert "13812345678" not in said.out
    found = json.loads(fairlead("redact", "--check", str(letter), "--json").out)["found"]
    assert [(one["line"], one["kind"]) for one in found] == [(1, "phone"), (3, "email")]
    assert fairlead("redact", "--check", "--kind", "iban", str(letter)).code == 0


def test_a_text_as_a_document(fairlead: Callable[..., Any], letter: Path) -> None:
    document = json.loads(fairlead("redact", "--kind", "email", str(letter), "--json").out)
    assert document["text"] == TEXT.replace("a@b.org", "[EMAIL]")


def test_a_key_of_many_lines_stays_in_one_piece(
    fairlead: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cli.privacy.redacting._BLOCK", 10)
    file = tmp_path / "key.pem"
    body = "\n".join("QWxhZGRpbjpvcGVuIHNlc2FtZQ" for _ in range(5))
    file.write_text(f"before\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nafter\n")
    assert fairlead("redact", str(file)).out == "before\n[SECRET]\nafter\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.txt",), "nowhere.txt cannot be read"),
        (("-o", "blur"), "unknown operator 'blur'"),
        (("-k", "fone"), "unknown kind of personal data 'fone'"),
        (("-o", "hash"), "need a key"),
    ],
)
def test_what_cannot_be_done_is_told(
    fairlead: Callable[..., Any], arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    done = fairlead("redact", *arguments, stdin=TEXT)
    assert done.code == 1
    assert said in done.err


def test_a_file_that_is_no_text(fairlead: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "gb.txt"
    file.write_bytes("电话".encode("gb18030"))
    said = fairlead("redact", str(file), "--out", str(tmp_path / "to"))
    assert "is no text in UTF-8" in said.err
    assert list((tmp_path / "to").iterdir()) == []


def test_a_tagger_finds_names(fairlead: Callable[..., Any], tmp_path: Path) -> None:
    folder = str(name_tagger(tmp_path, anna="PER").path)
    assert fairlead("redact", "--tagger", folder, stdin="Anna was here").out == "[NAME] was here"
    assert fairlead("redact", "--check", "--tagger", folder, stdin="Anna was here").code == 3
    said = fairlead("redact", "--tagger", "nobody", stdin="Anna")
    assert said.code == 1
    assert "nobody" in said.err
