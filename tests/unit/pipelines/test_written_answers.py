"""A chat model writes the answers to the test questions: what it is asked, what is measured, and when it fails."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.problems.answering import listed
from contracts.written_answers import NOT_FOUND, messages
from pipelines.evaluation.answering import EVALUATION, OF_ROWS, Wanted
from pipelines.evaluation.gate_metrics import check_gate
from pipelines.evaluation.written import COLUMN, WRITTEN, Said
from pipelines.io.files import write_json
from pipelines.suites import asking
from pipelines.suites.writer import let_write
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from tests.chat_stand_in import chat_stand_in, last
from tests.problem_bundles import small_answerer

WARRANTY, DELIVERY = "How long is the warranty of the Ora pump?", "How many days takes the delivery of a pump?"
LEAVE, NOBODY = "How many days of leave a year has the office?", "Who painted the aquarium of the queen?"
QUESTIONS = {
    WARRANTY: Wanted("24 months", "The warranty of the Ora pump is 24 months.", "pump.md"),
    DELIVERY: Wanted("5 days", "Delivery of a pump takes 5 days.", "planted.md"),
    LEAVE: Wanted(),
    NOBODY: Wanted(),
}


def config(url: str = "", **changes: Any) -> Any:
    return recipe_config(get_task("answers"), "hybrid", {"writer.url": url, **changes} if url else changes)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[pd.DataFrame, Any]:
    """Test rows, and what the index answers them; all but the last question are answered."""
    model = small_answerer(tmp_path / "model")
    labels = ["", "", "staff", ""]
    rows = [{"question": text, "label": wanted.text()} for text, wanted in QUESTIONS.items()]
    frame = pd.DataFrame(rows).assign(labels=labels)
    answers = np.empty(len(frame), dtype=object)
    answers[:] = [model.answer(text, listed(mine)) for text, mine in zip(frame["question"], labels, strict=True)]
    assert [one.found for one in answers] == [True, True, True, False]
    return frame, answers


def says(told: dict[str, Any]) -> Any:
    """The stand-in's answer to a request, by its question."""
    return lambda body: next(text for question, text in told.items() if question in last(body))


def told(*_: Any, **__: Any) -> None:
    """No progress is shown."""


def measured(frame: pd.DataFrame, answers: Any) -> dict[str, float]:
    return EVALUATION.measure_for(frame, answers, None, None)(None)  # type: ignore[arg-type]


def place(answers: Any, at: int, text: str) -> int:
    """Number of the passage with a text, as a model cites it."""
    return next(number for number, one in enumerate(answers[at].passages, 1) if text in one.text)


def test_what_is_written_is_measured_beside_what_is_quoted(asked: Any, tmp_path: Path) -> None:
    frame, answers = asked
    right, wrong = place(answers, 0, "24 months"), place(answers, 1, "5 days") % len(answers[1].passages) + 1
    said = {WARRANTY: f"24 months [{right}].", DELIVERY: f"77 days, says Berlin [{wrong}] [9].", LEAVE: NOT_FOUND}
    with chat_stand_in(says(said)) as service:
        rows, about = let_write(frame, answers, config(service.url, **{"writer.cache": str(tmp_path)}), told)
        again, _ = let_write(frame, answers, config(f"{service.url}/v1", **{"writer.cache": str(tmp_path)}), told)
    assert rows[COLUMN].tolist() == again[COLUMN].tolist()
    assert len(service.asked) == 6, "not what the index has no answer to; and nothing is kept of a run that is done"
    assert all(one in service.asked[3:] for one in service.asked[:3]), "the same passages have the same marks"
    assert {(body["temperature"], body["seed"], body["max_tokens"]) for body in service.asked} == {(0, 7, 300)}
    body = next(one for one in service.asked if WARRANTY in last(one))
    number = last(body)[: last(body).index(" ")].removeprefix("<passage-")
    assert body["messages"] == messages(WARRANTY, answers[0].passages[:5], 1500, number), "as the service asks"
    assert len(number) == 16
    found = measured(rows, answers)
    assert set(found) == {*OF_ROWS, *WRITTEN}
    assert found["written_f1"] == pytest.approx((1 + 2 / 6) / 2), "24 months; days, of 4 and 2 words"
    quoted = "Delivery of a pump takes 5 days."  # a number that nobody gave is not taken
    assert Said.of(rows[COLUMN][1]) == Said(said[DELIVERY], "uncited", quoted, 5)
    assert found["served_f1"] == pytest.approx((1 + 2 * 2 / 9) / 2)
    assert found["written_citation_precision"] == pytest.approx(1 / 3), "over all citations, [9] among them"
    assert (found["written_refused_rightly"], found["written_refused_wrongly"]) == (1, 0)
    assert (found["written_taken"], found["written_failed"]) == (0.5, 0)
    assert (found["written_unsupported_numbers"], found["written_unsupported_names"]) == (0.5, 0.5)
    assert (about["writer"]["model"], about["writer"]["asked"], about["writer"]["rows"]) == ("stand-in", 3, 4)
    assert about["writer"]["why"] == {"": 1, "not_found": 1, "uncited": 1}
    assert [one["wanted"] for one in about["writer"]["samples"]] == ["", "5 days", "24 months"], "the least alike first"


def test_chinese_is_compared_by_characters(asked: Any) -> None:
    frame, answers = asked
    one = frame[:1].assign(label=Wanted("保修期是两年", "The warranty of the Ora pump is 24 months.", "pump.md").text())
    one[COLUMN] = [Said("保修两年 [1]", "", "保修两年 [1]", 5).json()]
    found = measured(one, answers[:1])
    assert found["written_f1"] == found["served_f1"] == pytest.approx(2 * 4 / (4 + 6))


def test_a_refusal_of_what_is_there_and_a_refused_request_are_told_apart(asked: Any, tmp_path: Path) -> None:
    frame, answers = asked
    refused = (400, {"error": {"code": "content_filter", "message": "no"}})
    said = {WARRANTY: NOT_FOUND, DELIVERY: refused, LEAVE: "25 days [1]."}
    with chat_stand_in(says(said)) as service:
        rows, _ = let_write(frame, answers, config(service.url, **{"writer.cache": str(tmp_path)}), told)
    found = measured(rows, answers)
    assert (found["written_refused_wrongly"], found["written_refused_rightly"]) == (1, 0)
    assert found["written_failed"] == pytest.approx(1 / 3)
    assert found["written_f1"] == 0
    assert found["served_f1"] > 0, "what failed is quoted"


def test_without_a_chat_model_nothing_changes(asked: Any) -> None:
    frame, answers = asked
    rows, about = let_write(frame, answers, config(), told)
    assert rows is frame
    assert about == {}
    assert set(measured(frame, answers)) == set(OF_ROWS)
    assert let_write(frame, answers, object(), told) == (frame, {})


@contextmanager
def slowly() -> Iterator[str]:
    """A service that sends a byte from time to time, and never comes to the end."""
    server, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with suppress(TimeoutError), server.accept()[0] as one:
            one.recv(1 << 16)
            one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not done.wait(0.05):
                try:
                    one.sendall(b" ")
                except OSError:
                    return

    server.settimeout(1)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    done.set()
    thread.join()
    server.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("away", "Connection refused"), ("nonsense", "an answer has another form"), ("slow", "no answer in 0.3 s")],
)
def test_a_chat_model_that_does_not_answer_ends_the_step(asked: Any, tmp_path: Path, kind: str, said: str) -> None:
    frame, answers = asked
    nonsense = chat_stand_in(lambda body: (200, {"chosen": "nothing"}))
    with nonsense as service, slowly() if kind == "slow" else nullcontext("http://127.0.0.1:9") as other:
        url = service.url if kind == "nonsense" else other
        changes = {"writer.cache": str(tmp_path), "writer.seconds": 0.3, "writer.model": "stand-in"}
        began = time.monotonic()
        with pytest.raises(PlatformError, match="does not write the answers") as failed:
            let_write(frame, answers, config(url, **changes), told)
        assert time.monotonic() - began < 2
    assert failed.value.code == "no_writer"
    assert said in failed.value.detail
    assert "FAIRLEAD_WRITER_KEY" in failed.value.fix


def test_what_was_answered_before_a_failure_is_not_asked_again(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, answers = asked
    monkeypatch.setattr(asking, "_TRIES", 1)
    monkeypatch.setenv("FAIRLEAD_WRITER_KEY", "of-nobody-else")
    down = [True]

    def say(body: dict[str, Any]) -> Any:
        return (503, {}) if down[0] and LEAVE in last(body) else "25 days [1]."

    with chat_stand_in(say) as service:
        settings = config(service.url, **{"writer.cache": str(tmp_path / "kept"), "writer.at_once": 1})
        with pytest.raises(PlatformError, match="does not write"):
            let_write(frame, answers, settings, told)
        kept = [file.read_text() for file in (tmp_path / "kept").rglob("*.json")]
        assert len(kept) == 2
        assert "of-nobody-else" not in "".join(kept)
        down[0] = False
        let_write(frame, answers, settings, told)
    assert len(service.asked) == 4
    assert not list((tmp_path / "kept").iterdir())


def test_settings_of_the_chat_model_are_checked_and_train_nothing() -> None:
    task = get_task("answers")
    for url in ("chat:3000", "https://me:secret@host", "https://host/?key=secret"):
        with pytest.raises(PlatformError, match="invalid configuration") as refused:
            config(url)
        assert "address" in refused.value.detail
    rule: dict[str, Any] = {"gate.thresholds": [{"metric": "written_f1", "minimum": 0.3}]}
    with pytest.raises(PlatformError, match="written_f1"):
        check_gate(task, config(**rule))
    check_gate(task, config("http://host", **rule))
    with pytest.raises(PlatformError, match="invalid configuration"):
        config("http://host", **{"gate.primary": "written_f1"})
    plain, other = config(), config("http://host")
    assert dump_config(plain.training_part()) == dump_config(other.training_part())
    assert dump_config(plain) != dump_config(other)


def test_a_run_has_it_in_metrics_intervals_slices_card_and_gate(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.pages.card import render_card
    from pipelines.steps import evaluate as step
    from pipelines.steps.gate import gate

    monkeypatch.setattr("pipelines.pages.data_report.render_data", lambda *_: "")
    dataset, made = tmp_path / "dataset", tmp_path / "made"
    (tmp_path / "trained").mkdir()
    (tmp_path / "model").rename(tmp_path / "trained" / "model")
    dataset.mkdir()
    named = asked[0].assign(id=list("abcd"), row_key=list("abcd"), k=np.nan, slice_language=["en", "en", "en", "zh"])
    named.to_parquet(dataset / "test.parquet")
    output = {"problem": "answering", "k": 3, "longest": 5, "passages": 6, "documents": 4, "threshold": 0.5}
    trained = {"engine": "answers", "output": output, "decision": None, "history": [], "parameters": {}}
    write_json(tmp_path / "trained" / "train.json", {**trained, "device": "cpu", "tolerance": 1e-4})
    with chat_stand_in(lambda body: "It is so <b>here</b> [1].") as service:
        rules = [{"metric": "written_citation_precision", "minimum": 0.99}, {"metric": "leaked", "maximum": 0}]
        settings = config(service.url, **{"writer.cache": str(tmp_path / "kept"), "gate.thresholds": rules})
        inputs = [one.model_dump() for one in get_task("answers").inputs(settings)]
        write_json(dataset / "dataset.json", {"inputs": inputs})
        text = dump_config(settings)
        lineage = json.dumps({"code_version": "code", "data_version": "0" * 16, "source": "built-in"})
        step.evaluate("answers", text, str(dataset), str(tmp_path / "trained"), lineage, str(made))
    found = json.loads((tmp_path / "made" / "evaluation.json").read_text())
    low, high = found["intervals"]["written_f1"]
    assert low <= found["metrics"]["written_f1"] <= high
    assert found["metrics"]["written_taken"] == 1
    assert "written_f1" in found["slices"]["language:en"]
    sure = [one["confidence"] for one in found["questions"]]
    assert sure == sorted(sure)
    assert found["writer"]["asked"] == len(service.asked)
    where = Endpoints(home=str(tmp_path / "home")).model_dump_json()
    gate("answers", text, str(dataset), str(made), where, str(tmp_path / "gate.json"))
    decision = json.loads((tmp_path / "gate.json").read_text())
    [check] = [one for one in decision["checks"] if one["metric"] == "written_citation_precision"]
    assert check["value"] == found["metrics"]["written_citation_precision"]
    candidate = json.loads((tmp_path / "made" / "candidate.json").read_text())
    assert candidate["metrics"]["served_f1"] == found["metrics"]["served_f1"]
    fields = {**candidate, "gate": decision, "lineage": {**candidate["lineage"], "created": "2026-01-01T00:00:00Z"}}
    page = render_card(tmp_path / "made", fields, "answers")
    assert "Answers that a chat model writes" in page
    assert "<b>here</b>" not in page
