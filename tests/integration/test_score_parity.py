"""Random payments get the same answer in a batch, from /predict, over the Open Inference Protocol, and as trained."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.registry import ModelVersion
from deploy.cli.serving.in_process import InProcessService
from feature_repo.stores.join import point_in_time_join
from pipelines.data.features import derive
from pipelines.data.file_rows import FileRows
from pipelines.data.hidden import CASE, read_hidden
from pipelines.evaluation import scoring
from pipelines.steps.batch_score import batch_score
from pipelines.steps.materialise import to_online
from tests.chain import Chain

pytestmark = pytest.mark.integration
LOG = logging.getLogger("fairlead.service")

# FAIRLEAD_TEST_PAYMENTS=1000 for as many payments; what a batch costs does not depend on its rows.
PER_BATCH = 20
BATCHES = max(int(os.environ.get("FAIRLEAD_TEST_PAYMENTS", "100")) // PER_BATCH, 1)


class Loop:
    """A fraud model of a small simulation with its store, and every way to ask it."""

    def __init__(self, folder: Path) -> None:
        size = {"simulator.customers": 150, "simulator.terminals": 100, "simulator.days": 50}
        self.folder, self.chain = folder, Chain(task="fraud", home=folder, overrides=size)
        self.chain.dataset()
        self.chain.candidate()
        self.bundle = self.chain.bundle()
        self.plan: dict[str, Any] = self.bundle.read_json("features.json")
        self.history = Path(json.loads((self.chain.path("features.json")).read_text())["path"])
        payments = FileRows.of_folder(self.chain.path("clean")).frame()
        self.customers = [*payments["customer_id"].unique()[:40], "nobody"]
        self.terminals = [*payments["terminal_id"].unique()[:40], "nowhere"]
        self.last = datetime.fromisoformat(self.plan["known_until"])
        self.online = self.known(self.last)

    def payments(self, chosen: list[Any]) -> list[dict[str, Any]]:
        return [
            {
                "customer_id": self.customers[customer],
                "terminal_id": self.terminals[terminal],
                "amount": amount,
                "event_time": (self.last + timedelta(microseconds=later)).isoformat(),
            }
            for customer, terminal, amount, later in chosen
        ]

    def service(self, path: Path | None = None) -> InProcessService:
        version = ModelVersion(
            name="fraud", version="1", digest=self.bundle.digest, path=str(self.bundle.path), gate_passed=True,
            created="", metrics={}, recipe="",
        )  # fmt: skip
        bundle = Bundle(path or self.bundle.path, self.bundle.document, self.bundle.digest)
        return InProcessService(self.chain.endpoints, version, bundle)

    def scored(self, rows: list[dict[str, Any]], kind: str, online: Path | None = None) -> pd.DataFrame:
        """The output of batch scoring of the rows, written as `kind`, with the chain's online store or another."""
        source, out = self.folder / f"rows.{kind}", self.folder / "scores"
        frame = pd.DataFrame(rows)
        frame.to_csv(source, index=False) if kind == "csv" else frame.to_parquet(source, index=False)
        for old in out.glob("*"):
            old.unlink()
        if out.exists():
            out.rmdir()
        ends = self.chain.endpoints.model_copy(update={"online": str(online)} if online else {})
        batch_score(str(self.bundle.path), str(source), ends.model_dump_json(), str(out))
        return parquet.read_table(next(out.glob("part-*"))).to_pandas()

    def known(self, until: datetime) -> Path:
        """The history as far as it was known at a moment, which is what materialising until then brings online."""
        folder = self.folder / "known"
        folder.mkdir(exist_ok=True)
        for view in self.plan["views"]:
            table = parquet.read_table(self.history / view["source"])
            moments = table[view["timestamp_field"]]
            parquet.write_table(table.filter(pc.less_equal(moments, pa.scalar(until, moments.type))),
                                folder / view["source"])  # fmt: skip
        return folder

    def trained(self, rows: list[dict[str, Any]], history: Path) -> Any:
        """Probabilities by the features that the training's join with a history gives for the rows."""
        frame = pd.DataFrame(rows).assign(event_time=[pd.Timestamp(row["event_time"]) for row in rows])
        joined = derive(point_in_time_join(self.plan, history, frame), self.plan)
        columns = scoring.columns_of(joined, self.bundle.document.signature.inputs)
        return scoring.predict(load_engine(self.bundle, threads=1), columns, self.bundle.document)[:, 1]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    return Loop(tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def service(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessService]:
    import services.metrics.service_metrics  # noqa: F401 - takes the variable away when it is imported

    before = LOG.level
    with pytest.MonkeyPatch.context() as patch:  # Feast may have made Prometheus write into a folder for processes
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path_factory.mktemp("metrics")))
        with loop.service() as running:
            assert LOG.level == logging.CRITICAL  # its lines are not for the terminal
            yield running
    assert LOG.level == before


def test_a_service_that_does_not_start_leaves_the_log_as_it_was(loop: Loop, tmp_path: Path) -> None:
    shutil.copytree(loop.bundle.path, tmp_path / "bundle")
    (tmp_path / "bundle" / "features.json").write_text("{}")
    before = LOG.level
    with pytest.raises(PlatformError, match="bundle refused"), loop.service(tmp_path / "bundle"):
        pass
    assert LOG.level == before


picks = st.tuples(
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0.01, 5000, allow_nan=False),
    st.just(0) | st.integers(0, 90 * 86_400_000_000),
)


@settings(max_examples=BATCHES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.lists(picks, min_size=PER_BATCH, max_size=PER_BATCH), st.sampled_from(["csv", "parquet"]))
def test_random_payments_get_one_answer_whichever_way_they_come(
    loop: Loop, service: InProcessService, chosen: list[Any], kind: str
) -> None:
    """From the end of the data on, up to past the time to live; the join sees what was brought online."""
    rows = loop.payments(chosen)
    batch = loop.scored(rows, kind)
    status, answer = service.predict({"instances": rows})
    assert status == 200, answer
    asked = answer["predictions"]
    positive = batch["probability_fraud"].to_numpy()
    np.testing.assert_array_equal(positive, [one["probabilities"]["fraud"] for one in asked])
    assert batch["label_predicted"].tolist() == [one["label"] for one in asked]
    assert [list(words) for words in batch["flags"]] == [one["flags"] for one in asked]
    np.testing.assert_array_equal(positive, over_oip(service, rows))
    np.testing.assert_allclose(positive, loop.trained(rows, loop.online), rtol=0, atol=1e-12)


@pytest.mark.parametrize("days", [0, 1, 5, 12, 40])
def test_labels_that_arrive_later_count_once_they_are_brought_online(loop: Loop, tmp_path: Path, days: int) -> None:
    """The history has labels that arrive after the last payment; the store serves them when materialised again."""
    later, online = days * 86_400_000_000, tmp_path / "later.db"
    rows = loop.payments([(at, at, 10.0 + at, later) for at in range(41)])
    to_online(loop.plan, loop.history, str(online), loop.last + timedelta(days=days))
    served = loop.scored(rows, "parquet", online)["probability_fraud"].to_numpy()
    np.testing.assert_allclose(served, loop.trained(rows, loop.history), rtol=0, atol=1e-12)
    if days in (1, 5):  # while some labels are still on their way, and rows are young enough to be served
        assert (served != loop.scored(rows, "parquet")["probability_fraud"].to_numpy()).any()


def over_oip(service: InProcessService, rows: list[dict[str, Any]]) -> list[float]:
    kinds = {"amount": "FP64"}
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": kinds.get(name, "BYTES"), "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    status, answer = service.post("/v2/models/fraud/infer", {"inputs": tensors})
    assert status == 200, answer
    found = {one["name"]: one["data"] for one in answer["outputs"]}
    return found["probabilities"][1::2]


def test_hidden_rows_are_what_serving_gives_for_unknown_entities_and_stale_features(loop: Loop) -> None:
    """Of the same rows: unknown keys by the join, all of them unknown or too old by `score`."""
    cases = {rows[CASE].iloc[0]: rows for rows in read_hidden(loop.chain.path("dataset"), "test")}
    engine, inputs = load_engine(loop.bundle, threads=1), loop.bundle.document.signature.inputs
    for name, unknown in {
        "unknown entity": ["customer_id", "terminal_id"],
        "unknown customer_id": ["customer_id"],
        "unknown terminal_id": ["terminal_id"],
        "stale": [],
    }.items():
        rows: Any = cases[name]
        evaluated = scoring.predict(engine, scoring.columns_of(rows, inputs), loop.bundle.document)[:, 1]
        late = timedelta(weeks=0 if unknown else 26)  # whole weeks, so that hour and weekend stay as they are
        asked = [
            {
                "customer_id": row.customer_id,
                "terminal_id": row.terminal_id,
                "amount": row.amount,
                "event_time": (row.event_time + late).isoformat(),
            }
            | dict.fromkeys(unknown, "nobody")
            for row in rows.itertuples()
        ]
        np.testing.assert_allclose(evaluated, loop.trained(asked, loop.history), rtol=0, atol=1e-12)
        if name in ("unknown entity", "stale"):
            served = loop.scored(asked, "parquet")["probability_fraud"].to_numpy()
            np.testing.assert_allclose(evaluated, served, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weeks", [0, 26])
def test_without_knowledge_an_answer_is_near_the_base_rate_and_the_amount_counts(loop: Loop, weeks: int) -> None:
    """A new customer at a new terminal; or known ones, long after their features were brought online."""
    amounts = [1.0, 5.0, 25.0, 80.0, 150.0, 1000.0]
    who = ("nobody", "nowhere") if not weeks else (loop.customers[0], loop.terminals[0])
    rows = [
        {
            "customer_id": who[0],
            "terminal_id": who[1],
            "amount": amount,
            "event_time": (loop.last + timedelta(hours=hour, weeks=weeks)).isoformat(),
        }
        for hour in range(1, 7 * 24)
        for amount in amounts
    ]
    scores = loop.scored(rows, "parquet")
    found = scores["probability_fraud"].to_numpy().reshape(-1, len(amounts))
    assert (np.diff(found, axis=1) >= 0).all()
    assert (found[:, -1] > 2 * found[:, 0]).all()
    alarms = (scores["label_predicted"] == "fraud").to_numpy().reshape(found.shape)
    assert alarms[:, :3].mean() < 0.1
    base = (pd.read_parquet(loop.chain.path("dataset") / "train.parquet")["label"] == "fraud").mean()
    assert found[:, :3].mean() < 2 * base
    everyday = scoring.columns_of(
        read_hidden(loop.chain.path("dataset"), "test")[0], loop.bundle.document.signature.inputs
    )
    answered = scoring.predict(load_engine(loop.bundle, threads=1), everyday, loop.bundle.document)[:, 1].mean()
    assert (
        base / 3 < answered < 3 * base
    )  # over the amounts of the test; a small simulation has 64 frauds to learn from
