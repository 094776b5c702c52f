"""The parties of a federation without a network between them: sites with rows of their own, and a coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.federation.certificates import checker, make_certificates
from pipelines.federation.coordinator import Coordinator
from pipelines.federation.learner import Local
from pipelines.federation.messages import Message, of_error, packed, unpacked
from pipelines.federation.models import model_of
from pipelines.federation.rehearsal import FAULTS
from pipelines.federation.settings import FederationConfig
from pipelines.federation.site import Site, SiteRules
from pipelines.io.files import write_json
from pipelines.training.network import NetworkConfig

INPUTS = [
    Input(name="income", dtype="float64"),
    Input(name="debt", dtype="float64"),
    Input(name="kind", dtype="string", categories=["a", "b"]),
]
CLASSES = ["no", "yes"]
NETWORK = NetworkConfig(hidden=(4,))
HOW = asdict(Local(epochs=1, batch_size=32, learning_rate=0.05, decay=0.0, clip=1.0, proximal=0.0))


def frame(rows: int, seed: int = 0) -> Any:
    import pandas as pd

    rng = np.random.default_rng(seed)
    made = pd.DataFrame(
        {
            "id": [f"{seed}-{at}" for at in range(rows)],
            "income": rng.lognormal(3, 1, rows),
            "debt": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(2, 1, rows)),
            "kind": rng.choice(["a", "b"], rows),
        }
    )
    odds = np.log1p(made["income"]) - np.log1p(made["debt"].fillna(5)) + (made["kind"] == "a")
    return made.assign(label=np.where(odds + rng.normal(0, 0.5, rows) > 1.5, "yes", "no"))


class Together:
    """A hub whose sites are objects here. late: sites that never answer in time."""

    def __init__(self, sites: Mapping[str, Site], late: set[str], check: Any) -> None:
        self.sites, self.late, self.sent = sites, late, []
        self.check = check

    def present(self) -> set[str]:
        return set(self.sites)

    def wait_for_sites(self, seconds: float, alive: Callable[[], None]) -> set[str]:
        return self.present()

    def ask(self, requests: Mapping[str, Message], seconds: float, patient: Any) -> Mapping[str, Message]:
        found = {}
        for name, request in requests.items():
            if name in self.late:
                continue
            try:
                answer = self.sites[name].answer(unpacked(packed(request), "server"))
            except PlatformError as err:
                answer = of_error(err)
            found[name] = unpacked(packed(answer), name)
            self.sent.append((request.document["ask"], name, found[name]))
        return found

    def tell(self, names: Any, message: Message) -> None:
        self.sent.append((message.document["ask"], "", message))


class Parties:
    """Sites with rows of their own, and a coordinator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        config: FederationConfig,
        *,
        model: Any = NETWORK,
        rules: SiteRules | None = None,
        late: set[str] | None = None,
        privacy: Any = None,
    ) -> tuple[Coordinator, Together]:
        keys = self.folder / "keys"
        make_certificates(keys, config.names, ["localhost"])
        sites = {}
        for at, name in enumerate(config.names):
            data = self.folder / name
            data.mkdir(exist_ok=True)
            frame(200, at).to_parquet(data / "train.parquet")
            frame(80, 100 + at).to_parquet(data / "valid.parquet")
            write_json(data / "site.json", {"inputs": [one.model_dump() for one in INPUTS], "classes": CLASSES})
            kind = FAULTS.get(config.faults.get(name, ""), Site)
            sites[name] = kind(name, data, keys, rules or SiteRules(accept={"roc_auc": 0.6}))
        told = {"task": "t", "model": {**asdict(model), "kind": model.kind}, "secure": config.secure}
        hub = Together(sites, late or set(), checker(keys))
        return Coordinator(hub, config, {**told, "privacy": privacy}), hub  # type: ignore[arg-type]


def admitted(leader: Coordinator) -> Coordinator:
    leader.admit([one.model_dump() for one in INPUTS], CLASSES)
    return leader


def arrays(leader: Coordinator, model: Any = NETWORK) -> dict[str, Any]:
    known = model_of(model, INPUTS)
    spread = known.agree(leader.sums(len(known.sums(np.zeros((0, len(INPUTS)))))))
    return {"weights": known.first(7), "mean": spread.mean, "deviation": spread.deviation}


def rounds(leader: Coordinator, given: dict[str, Any], count: int, privacy: bool = False) -> dict[str, Any]:
    for number in range(1, count + 1):
        added, _ = leader.learn(number, given, {"how": HOW, "seed": 7}, lambda step: float(np.square(step).sum()))
        given = {**given, "weights": given["weights"] + added}
    return given
