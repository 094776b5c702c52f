"""A site: it keeps its rows, answers what the coordinator asks, and judges the model that comes of it.

What a site does is its own decision: `SiteRules` say what it takes part in, whatever the coordinator asks for.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as strict

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.federation.aggregate import clipped
from pipelines.federation.certificates import checker, signer
from pipelines.federation.engine import attend
from pipelines.federation.learner import Local, learned, learned_privately, measured
from pipelines.federation.messages import PROTOCOL, Message
from pipelines.federation.models import Model, model_told
from pipelines.federation.secure_sum import Keys, Masker, as_words
from pipelines.io.files import read_json, write_json
from pipelines.task import STRICT
from pipelines.training.network import Spread

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
_PARTS = ("train", "valid")
DECISION = "decision.json"


@strict(frozen=True, kw_only=True, config=STRICT)
class SiteRules:
    """What a site asks for before it takes part, and of the model before it takes it.

    min_rows: fewer training rows tell too much of each.  least_sites: in the federation.  secure: whether updates must
    be hidden from the coordinator.  max_epsilon: what the federation may cost at most; None asks for no privacy.
    accept: metric (roc_auc, accuracy or loss) on the site's own validation rows -> least, of loss most.
    """

    min_rows: Annotated[int, Field(ge=1)] = 50
    least_sites: Annotated[int, Field(ge=1)] = 2
    secure: bool = False
    max_epsilon: Annotated[float, Field(gt=0)] | None = None
    accept: Mapping[str, float] = field(default_factory=lambda: {"roc_auc": 0.5})


@dataclass(frozen=True, kw_only=True)
class Rows:
    """y: numbers of classes, shape (rows,)."""

    frame: pd.DataFrame
    y: NDArray[np.int64]


class Site:
    """What one site answers; a class of `pipelines.federation.rehearsal` may misbehave instead."""

    def __init__(self, name: str, data: Path, certificates: Path, rules: SiteRules) -> None:
        self.name, self.data, self.rules = name, data, rules
        self.over = threading.Event()
        self._identity, self._check = signer(certificates, name), checker(certificates)
        known = read_json(data / "site.json")
        self.inputs = [Input.model_validate(one) for one in known["inputs"]]
        self.classes: list[str] = known["classes"]
        self._rows: dict[str, Rows] = {}
        self._read: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self._model: Model | None = None
        self._masker: Masker | None = None
        self._tables: Mapping[str, Callable[[Message], Message]] = {
            "hello": self._hello,
            "keys": self._keys,
            "shares": self._shares,
            "sums": self._sums,
            "learn": self._learn,
            "unmask": self._unmask,
            "finish": self._finish,
            "end": self._end,
        }

    def answer(self, request: Message) -> Message:
        """The answer to a request.

        Raises:
            PlatformError: it cannot or will not be answered.
        """
        asked = str(request.document.get("ask"))
        if asked not in self._tables:
            raise self._refuses(f"an unknown request {asked!r}", "give both sides the same version of fairlead")
        if self._model is None and asked not in ("hello", "end"):
            raise self._refuses("a request before hello", "connect again")
        return self._tables[asked](request)

    def part(self, name: str) -> Rows:
        """Rows of the train or the valid part, read once."""
        if name not in self._rows:
            import pandas as pd

            file = self.data / f"{name}.parquet"
            frame = pd.read_parquet(file) if file.exists() else pd.read_parquet(self.data / "train.parquet").iloc[:0]
            places = {label: at for at, label in enumerate(self.classes)}
            y = frame["label"].map(places)
            if y.isna().any():
                wrong = frame["label"][y.isna()].iloc[0]
                raise self._refuses(f"label {wrong!r} in {file.name}", f"labels are {', '.join(self.classes)}")
            self._rows[name] = Rows(frame=frame, y=y.to_numpy().astype(np.int64))
        return self._rows[name]

    def seen(self, name: str, spread: Spread) -> Any:
        """What the model sees of a part."""
        return self.model.features(self.read(name), spread)

    def read(self, name: str) -> Any:
        """What the model keeps of a part, read once."""
        if name not in self._read:
            self._read[name] = self.model.read(self.part(name).frame)
        return self._read[name]

    @property
    def model(self) -> Model:
        """What is trained, once the coordinator has said it."""
        assert self._model is not None
        return self._model

    def update(self, weights: Floats, seen: Any, how: Local, seed: list[int]) -> Any:
        """What this site adds to the weights."""
        return learned(self.model, weights, seen, self.part("train").y, how, seed)

    def _hello(self, request: Message) -> Message:
        asked = dict(request.document)
        self._consent(asked)
        try:
            self._model = model_told(asked["model"], self.inputs, self.classes)
        except (ValueError, TypeError, KeyError) as err:
            said = str(asked["model"])[:300]
            raise self._refuses(f"a model that it does not know: {said}", "use the same version") from err
        self._asked, self._read = asked, {}
        return Message(document={"pid": os.getpid(), "time": time.time(), **self.about()})

    def about(self) -> dict[str, Any]:
        """What the coordinator compares before it lets a site in."""
        return {
            "protocol": PROTOCOL,
            "code": code_digest(),
            "inputs": [one.model_dump() for one in self.inputs],
            "classes": self.classes,
        }

    def _consent(self, asked: Mapping[str, Any]) -> None:
        rules, rows = self.rules, len(self.part("train").y)
        epsilon = asked["privacy"]["epsilon"] if asked["privacy"] else None
        reasons = {
            f"its {rows} training rows; its rule min_rows asks for {rules.min_rows}": rows < rules.min_rows,
            f"{asked['sites']} sites; its rule least_sites asks for {rules.least_sites}": asked["sites"]
            < rules.least_sites,
            "a sum that is not secure; its rule secure asks for one": rules.secure and not asked["secure"],
            f"epsilon {epsilon}; its rule max_epsilon allows {rules.max_epsilon}": rules.max_epsilon is not None
            and (epsilon is None or epsilon > rules.max_epsilon),
        }
        for reason, holds in reasons.items():
            if holds:
                raise self._refuses(reason, "agree with the site, or leave it out")

    def _keys(self, request: Message) -> Message:
        self._masker = Masker(self.name, request.document["sum"], *self._identity)
        return Message(document=self._masker.keys.as_dict())

    def _shares(self, request: Message) -> Message:
        peers = {name: Keys.from_dict(one) for name, one in request.document["keys"].items()}
        if len(peers) < self.rules.least_sites:
            raise self._refuses(f"a sum of {len(peers)} sites", "wait for more sites")
        shares = self._masking(request).shares(peers, self._check)
        return Message(document={name: one.hex() for name, one in shares.items()})

    def _sums(self, request: Message) -> Message:
        if self._asked["privacy"]:
            raise self._refuses("sums of its rows without noise", "take them of other rows")
        return self._given(request, "sums", self.model.sums(self.read("train")), 1.0, {})

    def _learn(self, request: Message) -> Message:
        asked, given = request.document, request.arrays
        rows, spread = self.part("train"), Spread(mean=given["mean"], deviation=given["deviation"], counts={})
        weights = given["weights"]
        if weights.shape != (self.model.count,) or not np.isfinite(weights).all():
            raise self._refuses(f"weights of shape {weights.shape}", f"there are {self.model.count} finite ones")
        private = self._asked["privacy"]
        about = {} if private else self._measured(weights, spread)
        seed = [int(asked["seed"]), int(asked["round"]), *self.name.encode()]
        seen, how = self.seen("train", spread), Local(**asked["how"])
        if private and private["unit"] == "row":
            update = learned_privately(self.model, weights, seen, rows.y, how, private)
        else:
            update = self.update(weights, seen, how, seed)
            update = self._with_noise(update, private) if private else update
        return self._given(request, "update", update, 1.0 if private else float(len(rows.y)), about)

    def _measured(self, weights: Floats, spread: Spread) -> dict[str, Any]:
        rows = self.part("valid")
        if self._asked["secure"] or not len(rows.y):
            return {}
        return {"measured": measured(self.model.scores(weights, self.seen("valid", spread)), rows.y)}

    def _with_noise(self, update: Any, private: Mapping[str, Any]) -> Any:
        """Cut to norm `clip`, and so much noise that that of the fewest sites allowed together is enough.

        The generator is seeded by the operating system, and is none for cryptography.
        """
        rng = np.random.default_rng(secrets.randbits(128))
        deviation = 2 * private["clip"] * private["noise"] / np.sqrt(private["least"])
        return clipped(update, private["clip"]) + rng.normal(0.0, deviation, update.shape)

    def _given(self, request: Message, name: str, values: Any, weight: float, about: Mapping[str, Any]) -> Message:
        """A vector with what it weighs: as it is, or masked."""
        if not self._asked["secure"]:
            return Message(document={**about, "weight": weight}, arrays={name: values})
        sites = len(request.document["shares"]) + 1
        words = as_words(np.concatenate([weight * np.asarray(values, dtype=np.float64), [weight]]), sites)
        received = {name: bytes.fromhex(one) for name, one in request.document["shares"].items()}
        return Message(document=about, arrays={"masked": self._masking(request).masked(words, received)})

    def _unmask(self, request: Message) -> Message:
        asked = request.document
        shares = self._masking(request).unmask(set(asked["survivors"]), set(asked["dropped"]))
        return Message(document={name: one.hex() for name, one in shares.items()})

    def _masking(self, request: Message) -> Masker:
        if self._masker is None or self._masker.sum_id != request.document["sum"]:
            raise self._refuses(f"a sum that it has not begun: {request.document['sum']}", "begin it with keys")
        return self._masker

    def _finish(self, request: Message) -> Message:
        """Judge the model on the site's own rows, and keep model and decision beside them."""
        given, rows = request.arrays, self.part("valid")
        spread = Spread(mean=given["mean"], deviation=given["deviation"], counts={})
        there = len(rows.y) > 0
        found = measured(self.model.scores(given["weights"], self.seen("valid", spread)), rows.y) if there else {}
        reasons = [
            f"{name} is {found[name]:.4g}, the rule asks for {limit:g}"
            for name, limit in self.rules.accept.items()
            if name in found and (found[name] > limit if name == "loss" else found[name] < limit)
        ]
        reasons += [] if found else ["there are no validation rows to judge it by"]
        model = self.data / "model.onnx"
        model.write_bytes(given["model"].tobytes())
        decision = {"accepted": not reasons, "reasons": reasons, "measured": found}
        write_json(self.data / DECISION, {**decision, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()})
        shown = {key: decision[key] for key in ("accepted", "reasons")}
        return Message(document=shown if self._asked["privacy"] or self._asked["secure"] else decision)

    def _end(self, request: Message) -> Message:
        threading.Timer(0.2, self.over.set).start()
        return Message()

    def _refuses(self, what: str, fix: str) -> PlatformError:
        return PlatformError(f"site {self.name} refuses {what}", fix=fix, code="site_refuses", site=self.name)


def attend_as(site: Site, server: str, certificates: Path) -> None:
    """Take part until the coordinator says that it is over."""
    attend(site.name, server, certificates, site.answer, site.over)


def code_digest() -> str:
    """Names the code that must be the same on both sides."""
    here = Path(__file__).parent
    names = ("network", "lstm_text", "transformer", "pretrained", "batches", "image_network", "pictures")
    files = [*sorted(here.glob("*.py")), *(here.parent / "training" / f"{name}.py" for name in names)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
