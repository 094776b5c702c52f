"""A source of the console whose every name can be given: nothing in it is read from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.testclient import TestClient

from contracts.bundle import Signature
from services.console.app import build_app
from services.console.documents import (
    Alert,
    Answer,
    AuditLine,
    AuditPage,
    Bars,
    Check,
    Cost,
    Drift,
    Failure,
    Link,
    Live,
    Loop,
    Measure,
    Model,
    ModelPage,
    Release,
    Run,
    RunPage,
    Stage,
    Step,
    Version,
    Window,
)
from services.server.auth import KeyRing

PAGES = (
    "/", "/models/fraud", "/models/broken", "/models/fraud/try", "/models/fraud/try?by=features", "/runs",
    "/runs/fraud-20261128-090000-aa11", "/runs/news-1", "/rollouts", "/alerts", "/audit", "/audit?page=3", "/nowhere",
)  # fmt: skip
HERE = "http://127.0.0.1:8600"


class MadeSource:
    """Every document has `word` in each of its texts."""

    def __init__(self, word: str = "", models: int = 2) -> None:
        self.word, self.count = word, models
        self.asked: list[tuple[str, dict[str, Any], bool]] = []
        self.keys: list[str] = []
        self.key_known = True
        self.steered: list[tuple[str, str, str, str]] = []
        self.answer = Answer(
            status=200,
            milliseconds=4.2,
            version="3",
            prediction={
                "id": self.named("id"), "label": self.named("fraud"), "probability": 0.82,
                "probabilities": {self.named("genuine"): 0.18, self.named("fraud"): 0.82},
                "reasons": [{"feature": self.named("amount"), "value": self.named("x"), "contribution": 0.4}],
                "flags": [self.named("unknown_category:country")],
            },
        )  # fmt: skip

    def named(self, text: str) -> str:
        return f"{text}{self.word}"

    @property
    def place(self) -> str:
        return self.named("/srv/fairlead")

    @property
    def links(self) -> Sequence[Link]:
        return [Link(label=self.named("MLflow"), url="http://mlflow.example:5000/")]

    def _stage(self) -> Stage:
        return Stage(
            model=self.named("fraud"),
            phase="running",
            strategy="canary",
            champion=self.named("3"),
            challenger=self.named("4"),
            weights={self.named("3"): 0.75, self.named("4"): 0.25},
            started="2026-11-29T11:58:00+00:00",
            reason=self.named("120 of 200 samples in this step"),
            events=[("2026-11-29T11:58:00+00:00", self.named("started"), self.named("by hand"))],
        )

    def _model(self, name: str) -> Model:
        return Model(
            name=name,
            version=self.named("3"),
            latest=self.named("4"),
            challenger=self.named("4"),
            recipe=self.named("lightgbm"),
            created="2026-11-28T09:00:00Z",
            gate_passed=True,
            live=Live(
                up=True,
                requests_per_second=41.25,
                errors=0.0004,
                p99_seconds=0.0121,
                objective=0.999,
                budget_left=0.62,
                cost_per_day=4.2,
                idle_cost_per_day=1.5,
                currency="CHF",
            ),
            quality=Measure(metric=self.named("average_precision"), value=0.7123, low=0.69, high=0.73),
            live_quality=Measure(metric=self.named("average_precision"), value=0.69, low=0.67, high=0.71),
            watched=30,
            drifted=2,
            drifted_inputs=[self.named("amount")],
            rollout=self._stage(),
            releases=[
                Release(name=self.named("fraud"), version=self.named("3"), ready=2, wanted=2,
                        address=self.named("http://fraud:80")),
                Release(name=self.named("fraud-next"), version=self.named("4"), ready=0, wanted=1),
            ],
            alerts=1,
            problem=self.named("odd") if self.word else "",
        )  # fmt: skip

    def models(self) -> Sequence[Model]:
        bare = Model(name=self.named("bare"))
        return [self._model(self.named("fraud")), *(self._model(f"model-{at}") for at in range(self.count - 2)), bare]

    def _version(self, number: str, passed: bool) -> Version:
        return Version(
            version=number,
            created="2026-11-28T09:00:00Z",
            recipe=self.named("lightgbm"),
            gate_passed=passed,
            aliases=[self.named("champion")],
            override="" if passed else self.named("accepted by the owner"),
            metrics={self.named("average_precision"): 0.71, "roc_auc": 0.95, self.named("f1"): 0.6},
            intervals={self.named("average_precision"): (0.69, 0.73)},
            primary=self.named("average_precision"),
            checks=[
                Check(metric=self.named("average_precision"), rule=self.named("at least"), limit=0.5, value=0.71,
                      passed=passed, against=self.named("fixed")),
            ],
            compared_with=self.named("fraud:2"),
            reasons=[self.named("average_precision is 0.71, at least 0.5")],
            data_version=self.named("c931bd8beae9c772"),
            code_version=self.named("3048841737eaa7d2"),
            source=self.named("payments.parquet"),
            run=self.named("fraud-20261128-090000-aa11"),
            digest=self.named("41520f569c5aeac6"),
            path=self.named("/srv/fairlead/bundles/fraud/41520f569c5aeac6"),
            files=["card.html"],
            problem=self.named("odd") if self.word else "",
        )  # fmt: skip

    def _window(self, day: int) -> Window:
        value = 0.72 - 0.006 * max(0, day - 10)
        measure = Measure(metric=self.named("average_precision"), value=value, low=value - 0.03, high=value + 0.02,
                          reference=0.71)  # fmt: skip
        other = Measure(metric=self.named("f1"), value=0.6, low=0.55, high=0.63)
        measures = [measure, other] if day != 3 else [measure]
        return Window(begin=f"2026-11-{day:02}T00:00:00+00:00", hours=24, rows=900 + day, measures=measures)

    def model(self, name: str) -> ModelPage | None:
        if name == "broken":
            return ModelPage(
                model=Model(name="broken", latest="1", problem="/srv/bundles/broken/1: bundle.json is missing"),
                versions=[
                    Version(version="1", created="2026-11-28T09:00:00Z", recipe="linear", gate_passed=False,
                            problem="bundle.json is missing")
                ],
            )  # fmt: skip
        if name != self.named("fraud"):
            return None
        numbers = Bars(labels=["0", "10", self.named("20")], shares=[0.4, 0.6])
        words = Bars(labels=[self.named("AT"), self.named("DE")], shares=[0.2, 0.8])
        return ModelPage(
            model=self._model(name),
            versions=[self._version(self.named("4"), False), self._version(self.named("3"), True)],
            drift=[
                Drift(name=self.named("amount"), kind="number", detected=True, psi=0.31, js=0.04, missing=0.01,
                      out_of_range=0.02, then=numbers, now=Bars(labels=numbers.labels, shares=[0.1, 0.9]),
                      past=[(f"2026-11-29T{at:02}:00:00+00:00", 0.02 + 0.03 * max(0, at - 6)) for at in range(16)]),
                Drift(name=self.named("country"), kind="category", detected=False, psi=0.01, js=0.001, then=words),
                *(Drift(name=f"{self.named('input')}{at}", then=numbers) for at in range(12)),
            ],
            quality=[Measure(metric=self.named("f1"), value=0.4, low=0.3, high=0.5, part=self.named("night"), rows=900,
                             reference=0.6, dropped=True)],
            windows=[self._window(day) for day in range(1, 21)],
            drift_window=self.named("2026-11-29T11:00 … 12:00"),
            rollouts=[self._stage()],
            loop=Loop(phase="asking", reason=self.named("amount drifts"), next_time="2026-11-30T00:00:00+00:00",
                      run=self.named("fraud-9")),
            alerts=self.alerts(),
            endpoint=self.named("http://fraud.example:3000"),
            signature=self.signature(),
            example={"amount": 12.5, "is_night": True},
            key_known=self.key_known,
            links=self.links,
        )  # fmt: skip

    def signature(self) -> Signature:
        inputs = [
            {"name": "amount", "dtype": "float64", "minimum": 0, "maximum": 10_000, "description": self.named("paid")},
            {"name": "items", "dtype": "int64", "minimum": 1},
            {"name": "is_night", "dtype": "bool"},
            {"name": self.named("country"), "dtype": "string", "categories": [self.named("AT"), self.named("DE")]},
            {"name": self.named("note"), "dtype": "string"},
            {"name": "customer_mean_7d", "dtype": "float64", "source": "online"},
        ]
        return Signature.model_validate(
            {
                "inputs": inputs,
                "output": {"problem": "classification", "classes": ["genuine", "fraud"]},
                "entities": [self.named("customer_id")],
                "timestamp": self.named("event_time"),
            }
        )

    def bundle_file(self, name: str, version: str, file: str) -> bytes | None:
        known = (name, version, file) == (self.named("fraud"), self.named("3"), "card.html")
        return b"<!doctype html><title>card</title>" if known else None

    def runs(self, limit: int) -> Sequence[Run]:
        run_id = self.named("fraud-20261128-090000-aa11")
        good = Run(run_id=run_id, status="succeeded", task=self.named("fraud"), recipe=self.named("lightgbm"),
                   started="2026-11-28T09:00:00+00:00", seconds=61.2, result=self.named("fraud:3"),
                   model=self.named("fraud"))  # fmt: skip
        bad = Run(run_id=self.named("news-1"), status="failed", task=self.named("news"), error=self.named("no data"))
        return [good, bad][:limit]

    def run(self, run_id: str) -> RunPage | None:
        known = {run.run_id: run for run in self.runs(2)}
        if run_id not in known:
            return None
        bad = known[run_id].status == "failed"
        first, second, third = self.named("ingest"), self.named("train"), self.named("gate")
        return RunPage(
            run=known[run_id],
            steps=[
                Step(name=first, status="cached", seconds=0.1, facts=[(self.named("rows"), self.named("84,409"))]),
                Step(name=second, status="failed" if bad else "finished", seconds=20.4, needs=[first], tries=2,
                     waiting=self.named("for memory") if self.word else ""),
                Step(name=third, status="waiting", needs=[first, second]),
            ],
            finished="2026-11-28T09:01:01+00:00",
            cost=None
            if bad
            else Cost(core_hours=0.21, gib_hours=0.4, gpu_hours=0.1, money=0.5, idle=0.1, currency=self.named("CHF")),
            source=self.named("payments.parquet"),
            settings=[(self.named("model.rounds"), self.named("150"))],
            error=Failure(
                headline=self.named("step train failed"), detail=self.named("not enough memory"), fix=self.named("more")
            ) if bad else None,
            links=self.links,
        )  # fmt: skip

    def rollouts(self) -> Sequence[Stage]:
        return [self._stage()]

    def steer(self, model: str, command: str, actor: str, reason: str) -> None:
        self.steered.append((model, command, actor, reason))

    def alerts(self) -> Sequence[Alert] | None:
        return [
            Alert(name=self.named("FairleadDrift"), state="firing", severity=self.named("warning"),
                  model=self.named("fraud"), summary=self.named("amount has changed"),
                  description=self.named("see the page"), since="2026-11-29T11:30:00Z",
                  runbook="http://runbook.example/#FairleadDrift")
        ]  # fmt: skip

    def audit(self, page: int, size: int) -> AuditPage | None:
        entries = [
            AuditLine(sequence=120 - at, time="2026-11-29T11:30:00Z", actor=self.named("user:mara"),
                      action=self.named("promote"), subject=self.named("fraud:3"), reason=self.named("better"),
                      evidence=self.named('{"gate": true}'))
            for at in range(120)
        ]  # fmt: skip
        broken = self.named("entry 3 is changed") if self.word else ""
        shown = entries[(page - 1) * size : page * size]
        return AuditPage(entries=shown, total=120, intact=not broken, broken=broken)

    def predict(self, name: str, instance: Mapping[str, Any], explain: bool, key: str) -> Answer:
        self.keys.append(key)
        self.asked.append((name, dict(instance), explain))
        return self.answer


def open_console(source: MadeSource | None = None, keys: KeyRing | None = None, secret: bytes = b"") -> TestClient:
    app = build_app(source or MadeSource(), keys, secret)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)
