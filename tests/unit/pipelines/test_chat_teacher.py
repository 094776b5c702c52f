"""A teacher's answers: asked once, kept, and gone on with after a fault."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contracts.errors import PlatformError
from pipelines.recipes.chat.teacher import TeacherConfig, answers_of


class Teacher(ThreadingHTTPServer):
    """Answers with the prompt in capital letters; what it `fails` at is refused."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.fails = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][-1]["content"]
                outer.asked.append(prompt)
                outer.keys.append(self.headers.get("authorization"))
                answer = {"choices": [{"message": {"content": "" if prompt == "silence" else prompt.upper()}}]}
                self.send_response(500 if prompt == outer.fails else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    server = Teacher()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def config(teacher: Teacher, folder: Path) -> TeacherConfig:
    url = f"http://127.0.0.1:{teacher.server_port}/v1"
    return TeacherConfig(url=url, model="large", licence="Apache-2.0", cache=str(folder), at_once=1)


def ask(settings: TeacherConfig, *prompts: str, system: str = "") -> list[str]:
    return answers_of(settings, prompts, system, lambda *_: None)


def test_answers_are_asked_once(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_TEACHER_KEY", "secret")
    settings = config(teacher, tmp_path)
    assert ask(settings, "a", "b", "a") == ["A", "B", "A"]
    assert ask(settings, "b", "c") == ["B", "C"]
    assert teacher.asked == ["a", "b", "c"]
    assert ask(settings, "a", system="Other.") == ["A"]  # another question
    assert len(teacher.asked) == 4
    assert teacher.keys == ["Bearer secret"] * 4
    assert "secret" not in "".join(file.read_text() for file in tmp_path.iterdir())


def test_what_was_answered_before_a_fault_is_kept(teacher: Teacher, tmp_path: Path) -> None:
    settings = config(teacher, tmp_path)
    teacher.fails = "b"
    with pytest.raises(PlatformError, match="gives no answers") as caught:
        ask(settings, "a", "b", "c")
    assert "status 500" in caught.value.detail
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b'{"key": "cut')
    teacher.fails, teacher.asked = "", []
    assert ask(settings, "a", "b", "c") == ["A", "B", "C"]
    assert "a" not in teacher.asked
    teacher.asked = []
    assert ask(settings, "a", "b", "c") == ["A", "B", "C"]
    assert teacher.asked == []


def test_a_teacher_without_a_licence_or_an_address_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"no teacher\.licence"):
        ask(TeacherConfig(url="http://127.0.0.1:1/v1", model="large"), "a")
    with pytest.raises(PlatformError, match="gives no answers") as caught:
        ask(TeacherConfig(url="file:///etc/passwd", model="m", licence="x", cache=str(tmp_path)), "a")
    assert "does not begin with http" in caught.value.detail
    with pytest.raises(PlatformError, match="answered a prompt with nothing"):
        ask(config(teacher, tmp_path), "silence")
