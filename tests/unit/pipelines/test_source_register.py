"""The register of sources: what is not in it, or must not be used today, is refused with whom to ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import PlatformError
from pipelines.data import register

TODAY = date(2026, 11, 29)
ENTRY: dict[str, Any] = {
    "where": ["applications/*.csv", "s3://bank/applications/*"],
    "origin": "the bank's own applications",
    "licence": "internal",
    "purposes": ["credit", "reporting"],
    "personal": True,
    "consent": {"basis": "contract, GDPR 6(1)b", "until": "2027-01-31"},
    "collected": "2026-01-01",
    "retention_days": 730,
    "contact": "dpo@bank.example",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A task's folder with a register of one source; a value of None takes a key away."""

    def made(**changed: Any) -> Path:
        entry = {key: value for key, value in {**ENTRY, **changed}.items() if value is not None}
        text = yaml.safe_dump({"purpose": "credit", "sources": {"applications": entry}})
        (tmp_path / register.FILE).write_text(text)
        return tmp_path

    return made


def refused(folder: Path, source: str = "applications/a.csv", today: date = TODAY) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        register.require(folder, source, today)
    return caught.value


@pytest.mark.parametrize(
    "source", ["applications/a.csv", "/data/applications/b.csv", "s3://bank/applications/2026/c.parquet"]
)
def test_a_registered_source_gives_its_entry(write: Callable[..., Path], source: str) -> None:
    found = register.require(write(), source, TODAY)
    assert (found["name"], found["purpose"], found["contact"]) == ("applications", "credit", "dpo@bank.example")
    assert register.in_words(found)[-1] == (
        "Personal data: contract, GDPR 6(1)b until 2027-01-31; collected since 2026-01-01, kept for 730 days."
    )


def test_without_a_register_and_for_built_in_data_nothing_is_asked(write: Callable[..., Path], tmp_path: Path) -> None:
    assert register.require(tmp_path, "anything.csv") == {}
    folder = write()
    assert register.require(folder, "") == register.require(folder, "built-in") == {}


@pytest.mark.parametrize(
    "source", ["other.csv", "applications/a.parquet", "s3://b/applications/a", "my-applications/a.csv"]
)
def test_a_source_that_is_not_registered(write: Callable[..., Path], source: str) -> None:
    error = refused(write(), source)
    assert error.code == "unregistered_source"
    assert "applications: applications/*.csv, s3://bank/applications/*" in error.detail
    assert register.FILE in error.fix


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"consent": {"basis": "consent", "until": "2026-11-28"}}, "consent ended on 2026-11-28"),
        ({"purposes": "marketing"}, "given for marketing, not for credit"),
        ({"collected": "2024-11-28"}, "kept for longer than said: until 2026-11-28"),
    ],
)
def test_what_must_not_be_used(write: Callable[..., Path], changed: dict[str, Any], said: str) -> None:
    error = refused(write(**changed))
    assert (error.code, error.context["source"]) == ("source_refused", "applications")
    assert said in error.headline
    assert "dpo@bank.example" in error.fix


def test_the_last_day_counts(write: Callable[..., Path]) -> None:
    folder = write(consent={"basis": "consent", "until": "2026-11-29"}, collected="2024-11-29")
    assert register.require(folder, "applications/a.csv", TODAY)
    assert "consent ended" in refused(folder, today=date(2026, 11, 30)).headline


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"license": "x", "licence": None}, "sources.applications.license: unknown key; licence is meant?"),
        ({"consent": {"base": "x", "basis": "y"}}, "sources.applications.consent.base: unknown key; basis is meant?"),
        ({"contact": None}, "sources.applications.contact"),
        ({"personal": "sometimes"}, "sources.applications.personal"),
        ({"collected": "yesterday"}, "sources.applications.collected"),
        ({"retention_days": 0}, "sources.applications.retention_days"),
        ({"purposes": []}, "sources.applications.purposes"),
    ],
)
def test_a_register_with_a_mistake_names_the_key(
    write: Callable[..., Path], changed: dict[str, Any], said: str
) -> None:
    error = refused(write(**changed))
    assert error.code == "bad_register"
    assert said in error.detail


def test_personal_data_needs_a_reason_and_an_end(write: Callable[..., Path]) -> None:
    error = refused(write(consent=None, retention_days=None))
    assert "does not say consent, retention_days" in error.headline
    assert register.require(
        write(consent=None, collected=None, retention_days=None, personal=False), "applications/a.csv"
    )


@pytest.mark.parametrize("text", ["", "[", "purpose: credit", "- a", "purpose: credit\nsources: {}\n"])
def test_a_file_that_is_no_register(tmp_path: Path, text: str) -> None:
    (tmp_path / register.FILE).write_text(text)
    assert refused(tmp_path).code == "bad_register"


def test_a_run_is_refused_before_it_begins_and_by_its_first_step(
    write: Callable[..., Path],
    toy: Any,
    toy_config: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines import values
    from pipelines.run import Run
    from pipelines.steps import ingest

    folder = write()
    monkeypatch.setattr(values, "task_folder", lambda name: folder)
    monkeypatch.setattr(ingest, "task_folder", lambda name: folder)
    monkeypatch.setattr(values, "code_version", lambda name: "code")
    asked = Run.model_validate(
        {
            "task": "toy",
            "source": "other.csv",
            "config": json.loads(toy_config()),
            "endpoints": {"home": str(tmp_path / "home")},
        }
    )
    for call in (
        lambda: values.values_of(asked),
        lambda: ingest.ingest("toy", toy_config(), "other.csv", str(tmp_path / "data"), str(tmp_path / "out.json")),
    ):
        with pytest.raises(PlatformError, match=r"source other\.csv is not registered"):
            call()
    assert not (tmp_path / "data").exists()


def test_the_entry_is_in_the_data_set_and_on_its_page(
    write: Callable[..., Path],
    toy: Any,
    toy_config: Callable[..., str],
    toy_frame: Any,
    toy_csv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.io.files import read_json
    from pipelines.pages.data_report import render_data
    from pipelines.steps import build_dataset, ingest, validate

    folder = write()
    for step in (ingest, validate):
        monkeypatch.setattr(step, "task_folder", lambda name: folder)
    monkeypatch.setattr(register, "date", type("Day", (date,), {"today": classmethod(lambda cls: TODAY)}))
    file, out = toy_csv(tmp_path / "applications" / "a.csv", toy_frame(200)), tmp_path / "out.json"
    ingest.ingest("toy", toy_config(), str(file), str(tmp_path / "data"), str(out))
    validate.validate("toy", toy_config(), str(out), str(tmp_path / "clean"))
    build_dataset.build_dataset("toy", toy_config(), str(tmp_path / "clean"), "", str(tmp_path / "set"))
    assert read_json(tmp_path / "set" / "dataset.json")["origin"]["licence"] == "internal"
    assert "contact dpo@bank.example" in render_data(tmp_path / "set", {})
