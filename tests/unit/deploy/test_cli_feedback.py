"""labels and predictions over a log on this machine; the registry is one in memory."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.audit import AuditLog
from contracts.bundle import BundleDocument
from contracts.endpoints import Endpoints
from deploy.cli.profiles.log_salt import home_salt
from deploy.cli.serving.serve import open_endpoint
from services.adapters.store import AdapterStore
from services.feedback import layout
from services.feedback.hashing import hashed
from services.feedback.line_file import append
from services.feedback.reading import labels
from services.feedback.records import Prediction, line_of
from tests.unit.deploy.conftest import Said

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDS = [f"{int(NOON.timestamp() * 1000):012x}{number:020x}" for number in range(6)]
DOCUMENT = {
    "name": "fraud",
    "task": "fraud",
    "recipe": "lightgbm",
    "modality": "tabular",
    "engine": "lightgbm",
    "signature": {"inputs": [{"name": "amount", "dtype": "float64"}], "classes": ["0", "1"]},
    "gate": {"passed": True, "checks": []},
    "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01"},
    "files": {},
}


class OneModel:
    """A registry with version 3 of the model."""

    def __init__(self, endpoints: object) -> None:
        self.version = SimpleNamespace(name="fraud", version="3")

    def resolve(self, ref: str) -> Any:
        return self.version

    def fetch(self, ref: str) -> Any:
        document = BundleDocument.model_validate(DOCUMENT)
        return SimpleNamespace(document=document, path=Path("/bundles/fraud"), digest="0" * 64)


@pytest.fixture
def log(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log of five predictions of two versions and two cards, of a day that is over."""
    monkeypatch.setattr("contracts.registry.Registry", OneModel)
    monkeypatch.delenv("FAIRLEAD_SERVICE_PREDICTIONS__SALT", raising=False)
    folder, salt = endpoints.uri("predictions"), home_salt(endpoints.path("home"))
    for number, one in enumerate(IDS[:5]):
        record = Prediction(
            id=one,
            time=NOON,
            model="fraud",
            version="2" if number == 4 else "3",
            digest="",
            answer={"label": "0", "score": 0.1},
            inputs={"amount": 1.0},
            entities={"card": hashed(salt.encode(), str(number % 2))},
            flags=(),
            latency_ms=1.0,
            schema=2,
        )
        append(Path(layout.home(folder, "fraud")) / "2026-03-01.a-1.jsonl", line_of(record))
    return folder


Importer = Callable[..., Said]


@pytest.fixture
def bring(log: str, fairlead: Callable[..., Said], tmp_path: Path) -> Importer:
    def bring(rows: Sequence[Sequence[str]], *options: str, heading: str = "id,label,time") -> Said:
        file = tmp_path / "labels.csv"
        file.write_text("\n".join([heading, *(",".join(row) for row in rows)]) + "\n")
        return fairlead("labels", "fraud", "--source", str(file), "--json", *options)

    return bring


LATER, LATEST = "2026-03-08T00:00:00Z", "2026-03-09T00:00:00+02:00"


def test_every_row_is_accounted_for(bring: Importer, log: str) -> None:
    ahead = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    soon = f"{int(datetime.now(UTC).timestamp() * 1000):012x}{7:020x}"
    rows = [
        (IDS[0], "1", LATER),
        (IDS[1], "0", LATER),
        (IDS[4], "1", LATER),
        (IDS[0], "1", LATER),
        (IDS[0], "0", LATER),
        (IDS[1], "1", LATEST),
        (IDS[5], "1", LATER),
        ("order-7", "1", LATER),
        (soon, "1", LATER),
        (IDS[2], "2", LATER),
        (IDS[2], "1", ahead),
        (IDS[2], "1", "2026-03-08T00:00:00"),
        ("", "1", LATER),
    ]
    said = bring(rows)
    assert said.code == 1
    counts = {key: value for key, value in said.json.items() if isinstance(value, int)}
    expected = {"joined": 4, "other_versions": 1, "corrected": 1, "repeated": 1, "contradicting": 1, "unknown": 2}
    assert counts == expected | {"waiting": 1, "refused": 4, "rows": 13}
    assert said.json["waiting_ids"] == [soon]
    assert said.json["by_version"] == {"2": 1, "3": 3}
    assert said.json["unknown_ids"] == [IDS[5], "order-7"]
    assert [one["kept"] + one["refused"] for one in said.json["contradictions"]] == ["10"]
    assert [row.partition(":")[0] for row in said.json["refused_rows"]] == ["row 10", "row 11", "row 12", "row 13"]
    assert "classes: 0, 1" in said.json["refused_rows"][0]
    assert "future" in said.json["refused_rows"][1]
    assert "zone" in said.json["refused_rows"][2]
    assert len(list(labels(log, "fraud"))) == 5
    assert bring([(soon, "1", LATER)]).json["repeated"] == 1


@pytest.mark.parametrize("heading", ["id,label,time", "id,label"])
def test_the_same_file_twice_changes_nothing(bring: Importer, log: str, heading: str) -> None:
    rows = [(one, "1", LATER)[: heading.count(",") + 1] for one in IDS[:3]]
    assert bring(rows, heading=heading).json["joined"] == 3
    again = bring(rows, heading=heading)
    assert (again.code, again.json["joined"], again.json["repeated"]) == (0, 0, 3)
    assert len(list(labels(log, "fraud"))) == 3


def test_columns_may_have_other_names_and_types(bring: Importer, log: str, fairlead: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ("--id-column", "which", "--label-column", "truth", "--time-column", "seen")
    assert bring([(IDS[0], "1", LATER)], *columns, heading="which,truth,seen").json["joined"] == 1
    file = tmp_path / "labels.parquet"
    when = pa.array([NOON + timedelta(days=1)] * 3, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"id": IDS[1:4], "label": [1.0, 0.0, None], "time": when}), file)
    said = fairlead("labels", "fraud", "--source", str(file), "--json")
    assert (said.json["joined"], said.json["refused"]) == (2, 1)
    assert {one.label for one in labels(log, "fraud")} == {"0", "1"}


def test_a_file_that_is_none_is_refused_with_its_cure(bring: Importer, fairlead: Any, tmp_path: Path) -> None:
    said = bring([(IDS[0], "1")], heading="which,label")
    assert (said.code, said.json["error"]["code"]) == (1, "unknown_column")
    assert "which, label" in said.json["error"]["detail"]
    for name, data, code in (
        ("gone.csv", None, "not_found"),
        ("labels.xml", b"<a/>", "unknown_format"),
        ("labels.parquet", b"PAR", "unreadable_file"),
        ("labels.csv", b"id,label\na,b,c,d\n", "unreadable_file"),
        ("empty.csv", b"", "unreadable_file"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        said = fairlead("labels", "fraud", "--source", str(tmp_path / name), "--json")
        assert (said.code, said.json["error"]["code"]) == (1, code), name


def test_the_table_names_what_is_wrong(bring: Importer, fairlead: Any, tmp_path: Path) -> None:
    bring([(IDS[0], "1", LATER)])
    (tmp_path / "more.csv").write_text(f"id,label,time\n{IDS[0]},0,{LATER}\n{IDS[5]},1,{LATER}\n{IDS[4]},1,{LATER}\n")
    said = fairlead("labels", "fraud", "--source", str(tmp_path / "more.csv"))
    assert said.code == 0
    for text in ("not of version 3", f"Contradicting  {IDS[0]}", "1 is kept, 0 is not", f"Unknown        {IDS[5]}"):
        assert text in said.out


def test_a_model_without_a_log_is_said(log: str, fairlead: Any) -> None:
    said = fairlead("predictions", "list", "other", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "no_predictions")
    assert "has: fraud" in said.json["error"]["detail"]


def test_days_are_compacted_listed_and_dropped(bring: Importer, fairlead: Any, endpoints: Endpoints) -> None:
    bring([(IDS[0], "1", LATER)])
    before = fairlead("predictions", "list", "fraud", "--json").json["days"]
    assert [(one["day"], one["rows"], one["labels"], one["form"]) for one in before] == [("2026-03-01", 5, 1, "lines")]
    done = fairlead("predictions", "compact", "fraud", "--json").json
    assert (done["predictions"], done["labels"]["records"]) == ({"records": 5, "files": 1}, 0)
    after = fairlead("predictions", "list", "fraud", "--json").json["days"]
    assert [(one["day"], one["rows"], one["versions"], one["form"]) for one in after] == [
        ("2026-03-01", 5, ["2", "3"], "parquet")
    ]
    assert "5" in fairlead("predictions", "list", "fraud").out
    assert "Dropped    2" in fairlead("predictions", "compact", "fraud", "--keep-days", "30").out
    assert fairlead("predictions", "list", "fraud", "--json").json["days"] == []
    assert AuditLog.of(endpoints).read()[-1].evidence == {"keep_days": 30, "files": 2}


def test_one_entity_is_forgotten(bring: Importer, fairlead: Any, endpoints: Endpoints) -> None:
    bring([(IDS[0], "1", LATER), (IDS[1], "1", LATER)])
    said = fairlead("predictions", "forget", "fraud", "--entity", "card=0", "--json").json
    assert (said["predictions"], said["labels"]) == (3, 1)
    imported, forgotten = AuditLog.of(endpoints).read()
    assert (imported.action, imported.evidence["rows"]) == ("import_labels", 2)
    assert (forgotten.action, forgotten.evidence["keys"], forgotten.evidence["predictions"]) == (
        "forget_entity",
        ["card"],
        3,
    )
    assert said["adapters"] == 0
    found = fairlead("predictions", "list", "fraud", "--json").json
    assert (found["days"][0]["rows"], [one["predictions"] for one in found["removed"]]) == (2, [3])


def test_who_is_forgotten_has_no_adapter_any_more(
    log: str, fairlead: Any, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_SERVICE_ADAPTERS__FOLDER", str(tmp_path / "adapters"))
    salt, base = home_salt(endpoints.path("home")).encode(), "ab" * 32
    for card in ("0", "1"):
        assert AdapterStore(str(tmp_path / "adapters"), "fraud", base).put(hashed(salt, card), 1, b"an adapter")
    said = fairlead("predictions", "forget", "fraud", "--entity", "card=0", "--json").json
    assert said["adapters"] == 1
    (left,) = (tmp_path / "adapters").rglob("*.safetensors")
    assert hashed(salt, "1") in left.parts


@pytest.mark.parametrize("entity", ["card", "=1", "card="])
def test_an_entity_that_is_none_is_refused(log: str, fairlead: Any, entity: str) -> None:
    said = fairlead("predictions", "forget", "fraud", "--entity", entity, "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "bad_option")


def test_hashes_whose_salt_is_nowhere_are_said_to_be_beyond_reach(log: str, endpoints: Any, fairlead: Any) -> None:
    (endpoints.path("home") / "predictions.salt").unlink()
    said = fairlead("predictions", "forget", "fraud", "--entity", "card=0", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "random_salt")
    assert "FAIRLEAD_SERVICE_PREDICTIONS__SALT" in said.json["error"]["fix"]


def test_the_salt_of_a_home_is_made_once_and_its_owner_s_alone(tmp_path: Path) -> None:
    first = home_salt(tmp_path / "home")
    assert home_salt(tmp_path / "home") == first != home_salt(tmp_path / "other")
    file = tmp_path / "home" / "predictions.salt"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_what_is_served_is_logged_unless_it_is_switched_off(log: str, endpoints: Any) -> None:
    logged = open_endpoint(endpoints, "local", "fraud", 3010)
    variables = logged._command.env
    assert json.loads(variables["FAIRLEAD_SERVICE_PREDICTIONS__FOLDER"]) == log
    assert json.loads(variables["FAIRLEAD_SERVICE_PREDICTIONS__SALT"]) == home_salt(endpoints.path("home"))
    assert logged.predictions == log
    off = open_endpoint(endpoints, "local", "fraud", 3010, log=False)
    assert json.loads(off._command.env["FAIRLEAD_SERVICE_PREDICTIONS__FOLDER"]) == ""
    assert off.predictions == ""
