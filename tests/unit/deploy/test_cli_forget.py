"""forget: a home with a person in every place, and no byte of them afterwards; models that had them are named."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contracts import storage
from contracts.audit import AuditLog
from contracts.bundle import DOCUMENT, BundleDocument
from contracts.endpoints import Endpoints
from contracts.pii.redaction import KEY
from deploy.cli.privacy.traces import Traces
from deploy.cli.profiles.log_salt import home_salt
from feature_repo.stores.backend_sqlite import SqliteBackend
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.packed_rows import NEVER, Layout
from pipelines.data import forgotten
from pipelines.data.chunks import ROW, Chunk, Rejected
from pipelines.io.step_cache import StepCache
from pipelines.steps.ingest import ingest
from pipelines.task import dump_config
from pipelines.tasks import get_task
from services.adapters.store import AdapterStore
from services.feedback import layout
from services.feedback.hashing import hashed
from services.feedback.line_file import append
from services.feedback.reading import predictions
from services.feedback.records import Prediction, line_of
from tests.leftovers import left
from tests.s3_folder import FolderClient
from tests.unit.deploy.conftest import Said

PERSON, OTHER = "CANARY-4711", "C000002"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
JOIN = [{"name": "customer_id", "dtype": "string"}]
LAYOUT = Layout([{"name": "spent", "dtype": "float64"}])
DOCUMENTS = {
    "name": "fraud",
    "task": "fraud",
    "recipe": "logistic",
    "modality": "tabular",
    "engine": "onnx",
    "signature": {"inputs": [{"name": "amount", "dtype": "float64"}], "classes": ["genuine", "fraud"]},
    "gate": {"passed": True, "checks": []},
    "files": {},
}


def payments(path: Path, more: int = 0) -> Path:
    """A file of payments, each third of the person; one row cannot be read, and names them."""
    text = io.StringIO()
    out = csv.writer(text)
    out.writerow(["transaction_id", "event_time", "customer_id", "terminal_id", "amount", "fraud"])
    for at in range(60 + more):
        who = f" {PERSON} " if at % 3 == 0 else f"C{at % 7:06d}"
        out.writerow([f"P{at}", f"2026-03-01T{at % 24:02d}:00:00", who, "T1", 10 + at, at % 2])
    path.write_bytes(text.getvalue().encode() + f"P99,2026-03-01,{PERSON},too,few\n".encode())
    return path


def read(endpoints: Endpoints, source: Path, **data: Any) -> dict[str, Any]:
    """Ingest a file; the manifest."""
    document = json.loads(dump_config(get_task("fraud").recipes["logistic"]))
    document["data"] |= data
    out = source.parent / "manifest.json"
    ingest("fraud", json.dumps(document), str(source), endpoints.uri("data"), str(out))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


class Home:
    """A home in which somebody paid, was scored, and is remembered everywhere."""

    def __init__(self, endpoints: Endpoints, folder: Path) -> None:
        self.endpoints, self.source = endpoints, payments(folder / "payments.csv")
        self.manifest = read(endpoints, self.source)
        self.version = self.manifest["version"]
        history = storage.join(endpoints.uri("features"), "fraud", f"{self.version}-1")
        table = pa.table({"customer_id": [PERSON, OTHER, PERSON], "spent": [1.0, 2.0, 3.0]})
        made = folder / "customer_windows.parquet"
        parquet.write_table(table, made)
        storage.upload_file(made, storage.join(history, "customer_windows.parquet"))
        made.unlink()
        view = {"name": "customer_windows", "join_keys": JOIN, "columns": {}, "source": "customer_windows.parquet"}
        plan = {"project": "fraud", "views": [view], "known_until": "2026-03-02"}
        storage.write_bytes(storage.join(history, "features.json"), json.dumps(plan).encode())
        self.history = storage.join(history, "customer_windows.parquet")
        self.online = SqliteBackend(endpoints.path("online"))
        keys = serialise_keys(JOIN, {"customer_id": [PERSON, OTHER]})
        for event in (1, 2):  # the first row is written over, and lies in the file yet
            rows = LAYOUT.encode({"spent": np.ones(2)}, {}, np.full(2, event), np.full(2, NEVER))
            self.online.store("fraud", "customer_windows", LAYOUT, keys, rows, 0)
        salt = home_salt(endpoints.path("home")).encode()
        for at, who in enumerate([PERSON, OTHER]):
            record = Prediction(
                id=f"{int(NOON.timestamp() * 1000):012x}{at:020x}",
                time=NOON,
                model="fraud",
                version="1",
                digest="",
                answer={"label": "fraud", "score": 0.1},
                inputs={"amount": 1.0},
                entities={"customer_id": hashed(salt, who)},
                flags=(),
                latency_ms=1.0,
                schema=2,
            )
            self.log = endpoints.uri("predictions")
            line = storage.join(layout.home(self.log, "fraud"), "2026-03-01.a-1.jsonl")
            if storage.is_remote(self.log):
                line = storage.join(layout.home(self.log, "fraud"), f"2026-03-01/{at}-a-1-1.jsonl")
                storage.write_bytes(line, line_of(record))
            else:
                append(Path(line), line_of(record))
        self._cached("build_dataset", folder, table, {"version": self.version})
        self._cached("train", folder, None, {"other": 1})
        scratch = endpoints.scratch
        for name, text in {
            "runs/one/log.txt": f"row 3: {PERSON} paid too much\n",
            "runs/one/run.json": json.dumps({"error": f"customer_id={PERSON}, at 3"}),
            "serving/fraud.log": f'{{"who": "{PERSON}"}}\n{{"who": "{PERSON}0"}}\n',
        }.items():
            scratch(name).parent.mkdir(parents=True, exist_ok=True)
            scratch(name).write_text(text)

    def _cached(self, step: str, folder: Path, table: Any, document: Any) -> None:
        made = folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        (made / "out").mkdir(parents=True)
        (made / "out" / "dataset.json").write_text(json.dumps(document))
        if table is not None:
            parquet.write_table(table, made / "out" / "train.parquet")
        cache = StepCache(storage.join(self.endpoints.uri("data"), ".steps"))
        cache.keep(cache.address(step, "k" * 32), made, document)
        shutil.rmtree(made, ignore_errors=True)

    def places(self, root: Path) -> list[str]:
        """Files that name the person, the source apart; a longer key is somebody else's."""
        found = left(root, [PERSON]).get(PERSON, [])
        return [name for name in found if not name.startswith((str(self.source), str(root / "home" / "serving")))]


@pytest.fixture(params=["folder", "s3"])
def filled(
    request: pytest.FixtureRequest, endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Home:
    """Everything on this disk; or data, features and the log of predictions in S3."""
    monkeypatch.delenv("FAIRLEAD_SERVICE_PREDICTIONS__SALT", raising=False)
    if request.param == "s3":
        client = FolderClient(tmp_path)
        (tmp_path / "lake").mkdir()
        monkeypatch.setattr(storage, "_client", lambda: client)
        places = {name: f"s3://lake/{name}" for name in ("data", "features", "predictions")}
        for name, place in places.items():
            monkeypatch.setenv(f"FAIRLEAD_{name.upper()}", place)
        endpoints = endpoints.model_copy(update=places)
        monkeypatch.setenv("FAIRLEAD_SERVICE_PREDICTIONS__SALT", home_salt(endpoints.path("home")))
    home = Home(endpoints, tmp_path)
    bundles = tmp_path / "bundles"
    for name, data_version in (("old", home.version), ("older", "0" * 16)):
        lineage = {"code_version": "c", "data_version": data_version, "source": "s", "seed": 1, "created": "2026-01-01"}
        document = BundleDocument.model_validate({**DOCUMENTS, "lineage": lineage})
        storage.write_bytes(str(bundles / name / DOCUMENT), document.model_dump_json().encode())

    class Models:
        """A registry with two versions, of which one was trained with the person's rows."""

        def __init__(self, endpoints: object) -> None:
            pass

        def names(self) -> list[str]:
            return ["fraud"]

        def versions(self, name: str) -> list[Any]:
            return [
                SimpleNamespace(version="2", path=str(bundles / "older"), aliases=()),
                SimpleNamespace(version="1", path=str(bundles / "old"), aliases=("champion",)),
            ]

    monkeypatch.setattr("contracts.registry.Registry", Models)
    return home


Call = Callable[..., Said]


def test_no_byte_of_a_person_is_left(filled: Home, fairlead: Call, tmp_path: Path) -> None:
    assert len(filled.places(tmp_path)) >= 6  # the search finds what is there
    said = fairlead("forget", "--entity", f"customer_id={PERSON}", "--json")
    assert said.code == 0, said.err
    (task,) = said.json["tasks"]
    assert task["versions"][0]["rows"] == 21  # one of them could not be read
    assert (task["features"], task["online"], task["predictions"], task["steps"]) == (2, 1, 1, 1)
    assert said.json["texts"] == 3
    assert said.json["left"] == []
    assert filled.places(tmp_path) == []
    log = filled.endpoints.scratch("serving/fraud.log").read_text()
    assert log == f'{{"who": "{"x" * len(PERSON)}"}}\n{{"who": "{PERSON}0"}}\n'
    assert [model["ref"] for model in task["models"]] == ["fraud:1"]
    assert any("promote" in line for line in task["to_do"])
    # Others are where they were.
    (version,) = forgotten.versions(filled.endpoints.uri("data"), "fraud")
    assert version.name == task["versions"][0]["replaced_by"] != filled.version
    assert version.manifest["rows"] == 40
    assert version.manifest["replaces"] == [filled.version]
    with forgotten.file_here(filled.history) as file:
        assert parquet.read_table(file).column("customer_id").to_pylist() == [OTHER]
    assert filled.online.count("fraud", "customer_windows") == 1
    logged = list(predictions(filled.log, "fraud", NOON.replace(month=1), NOON.replace(month=12)))
    assert [one.id[-1] for one in logged] == ["1"]


def test_a_source_that_still_has_the_rows_does_not_bring_them_back(
    filled: Home, fairlead: Call, tmp_path: Path
) -> None:
    replaced = fairlead("forget", "--entity", f"customer_id={PERSON}", "--json").json["tasks"][0]["versions"][0]
    assert read(filled.endpoints, filled.source)["version"] == replaced["replaced_by"]  # and is not read again
    manifest = read(filled.endpoints, payments(filled.source, more=30))
    assert manifest["rows"] == 60
    assert manifest["forgotten"] == 30
    assert filled.places(tmp_path) == []


def test_a_dry_run_changes_nothing(filled: Home, fairlead: Call, tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        files = (file for name in ("home", "lake") for file in (tmp_path / name).rglob("*") if file.is_file())
        return {file: file.read_bytes() for file in files if file.suffix != ".db-shm"}  # of who reads a database

    before = contents()
    said = fairlead("forget", "--entity", f"customer_id={PERSON}", "--dry-run", "--json")
    assert said.code == 0
    (task,) = said.json["tasks"]
    assert (task["versions"][0]["rows"], task["features"], task["online"], task["predictions"]) == (21, 2, 1, 1)
    assert contents() == before


@pytest.mark.parametrize("broken", ["rewrite", "remove", "take_out", "name_sources", "remove_all"])
def test_a_call_that_was_ended_is_made_again(
    filled: Home, fairlead: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def ends(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(forgotten, broken, ends)
        assert fairlead("forget", "--entity", f"customer_id={PERSON}").code != 0
    said = fairlead("forget", "--entity", f"customer_id={PERSON}", "--json")
    assert said.code == 0
    assert filled.places(tmp_path) == []
    assert [model["ref"] for model in said.json["tasks"][0]["models"]] == ["fraud:1"]  # also when its data are gone
    assert len(forgotten.versions(filled.endpoints.uri("data"), "fraud")) == 1


def test_rows_whose_key_has_two_parts_are_found_by_one(
    endpoints: Endpoints, fairlead: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = [*JOIN, {"name": "terminal_id", "dtype": "string"}]
    view = {"name": "pairs", "join_keys": join, "columns": {}, "source": "pairs.parquet"}
    history = endpoints.scratch("features", "fraud", "v-1")
    history.mkdir(parents=True)
    (history / "features.json").write_text(json.dumps({"project": "fraud", "views": [view]}))
    table = pa.table({"customer_id": [PERSON, OTHER], "terminal_id": ["T1", "T1"], "spent": [1.0, 2.0]})
    parquet.write_table(table, history / "pairs.parquet")
    backend = SqliteBackend(endpoints.path("online"))
    keys = serialise_keys(join, {"customer_id": [PERSON, OTHER, PERSON], "terminal_id": ["T1", "T1", "T2"]})
    rows = LAYOUT.encode({"spent": np.ones(3)}, {}, np.full(3, 1), np.full(3, NEVER))
    backend.store("fraud", "pairs", LAYOUT, keys, rows, 0)
    monkeypatch.setattr("contracts.registry.Registry", lambda _: SimpleNamespace(names=list))
    (task,) = fairlead("forget", "--entity", f"customer_id={PERSON}", "--json").json["tasks"]
    assert (task["features"], task["online"]) == (1, 2)
    assert list(backend.keys("fraud", "pairs")) == [keys[1]]
    assert left(endpoints.path("home"), [PERSON]) == {}


def test_adapters_of_the_person_go(
    filled: Home, fairlead: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_SERVICE_PREDICTIONS__SALT", "salt")
    (tmp_path / "models").mkdir()
    (tmp_path / "profile.yaml").write_text("home: home\n")
    config = {"config": {"adapters": {"folder": str(tmp_path / "adapters"), "entity": "customer_id"}}}
    (tmp_path / "models" / "fraud.yaml").write_text(json.dumps(config))
    store = AdapterStore(str(tmp_path / "adapters"), "fraud", "ab" * 32)
    for who in (PERSON, OTHER):
        store.put(hashed(b"salt", who), 1, b"weights")
    asked = ("forget", "--entity", f"customer_id={PERSON}", "--json", "--profile", str(tmp_path / "profile.yaml"))
    for more, count in ((["--dry-run"], 1), ([], 1), ([], 0)):
        said = fairlead(*asked, *more)
        assert said.json["tasks"][0]["adapters"] == count
    assert store.last(hashed(b"salt", PERSON)).version == 0
    assert store.last(hashed(b"salt", OTHER)).version == 1


def test_the_audit_log_says_it_and_not_who(filled: Home, fairlead: Call) -> None:
    fairlead("forget", "--entity", f"customer_id={PERSON}")
    (entry,) = AuditLog.of(filled.endpoints).read()
    assert (entry.action, entry.subject) == ("forget_entity", "fraud")
    assert entry.evidence["models"] == ["fraud:1"]
    assert PERSON not in json.dumps(entry.as_dict())
    key = storage.read_bytes(storage.join(filled.endpoints.uri("data"), ".forgotten", "key"))
    assert entry.evidence["entity"] == forgotten.hashed(key, "customer_id", PERSON)


def test_who_is_meant_has_to_be_said(filled: Home, fairlead: Call) -> None:
    said = fairlead("forget", "--entity", PERSON)
    assert said.code == 1
    assert "several kinds" in said.err
    assert "customer_id=KEY" in said.err
    said = fairlead("forget", "--entity", "card=1")
    assert said.code == 1
    assert "customer_id" in said.err
    nobody = fairlead("forget", "--entity", "customer_id=nobody-else", "--json")
    assert nobody.code == 0
    assert nobody.json["tasks"][0]["versions"] == []
    assert len(filled.places(filled.source.parent)) >= 6


def test_rows_whose_ids_were_hashed_are_found_by_the_key(
    endpoints: Endpoints, fairlead: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "k" * 40)
    source = payments(tmp_path / "payments.csv")
    manifest = read(endpoints, source, pii={"customer_id": "hash:whole"})
    parts = [parquet.read_table(Path(manifest["path"]) / part["name"]) for part in manifest["parts"]]
    assert PERSON not in parts[0].column("customer_id").to_pylist()
    monkeypatch.setattr("contracts.registry.Registry", lambda _: SimpleNamespace(names=list))
    monkeypatch.delenv(KEY)
    assert "need a key" in fairlead("forget", "--entity", f"customer_id={PERSON}").err
    monkeypatch.setenv(KEY, "k" * 40)
    said = fairlead("forget", "--entity", f"customer_id={PERSON}", "--json")
    assert said.code == 0, said.err
    assert said.json["tasks"][0]["versions"][0]["rows"] == 20  # what could not be read was withheld
    assert read(endpoints, source, pii={"customer_id": "hash:whole"})["rows"] == 40


def test_what_was_masked_cannot_be_found_by_it(endpoints: Endpoints, fairlead: Call, tmp_path: Path) -> None:
    read(endpoints, payments(tmp_path / "payments.csv"), pii={"customer_id": "mask:whole"})
    said = fairlead("forget", "--entity", f"customer_id={PERSON}")
    assert said.code == 1
    assert "made unreadable" in said.err


texts = st.text("ab1. 0", min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, min_size=1, max_size=20), st.integers(0, 19))
def test_exactly_the_rows_of_a_key_are_left_out(values: list[str], at: int) -> None:
    from feature_repo.stores.keys import RefusedKeyError, canonical_text

    def canonical(text: str) -> str | None:
        try:
            return canonical_text(text)
        except RefusedKeyError:
            return None

    who = canonical(values[at % len(values)])
    if who is None:
        return
    entry = forgotten.Entry(column="c", hash=forgotten.hashed(b"key", "c", who), time="")
    listed = forgotten.Forgotten(key=b"key", entries=(entry,))
    table = pa.table({"c": values, ROW: range(len(values))})
    rejected = [Rejected(1, "c", f"1,{who},x", "bad"), Rejected(2, "c", "somebody", "bad")]
    found = listed.without(Chunk(table, len(values), rejected))
    assert found.table.column("c").to_pylist() == [text for text in values if canonical(text) != who]
    assert sum(listed.rows) == sum(canonical(text) == who for text in values)
    assert {row.row for row in found.rejected} == ({2} if who and " " not in who else {1, 2})


def test_keys_that_may_be_other_words_are_not_looked_for_in_texts(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("17 rows, 1234567 bytes, 20260301\n")
    for key in ("17", "1234567", "a1b2", "bytes", "champion"):
        assert Traces(tmp_path, key).look(overwrite=True) == (0, [])
        assert not Traces(tmp_path, key).distinct
    assert Traces(tmp_path, "20260301").look(overwrite=True) == (1, [])
    assert (tmp_path / "log.txt").read_text() == "17 rows, 1234567 bytes, xxxxxxxx\n"


def test_bundles_and_databases_stay_and_are_named(tmp_path: Path) -> None:
    bundle, database = tmp_path / "bundles" / "m" / "1" / "golden.jsonl", tmp_path / "mlflow.db"
    bundle.parent.mkdir(parents=True)
    for file in (bundle, database):
        file.write_text(f'"{PERSON}"')
    assert Traces(tmp_path, PERSON).look(overwrite=True) == (0, [str(bundle), str(database)])
    assert PERSON in bundle.read_text()
