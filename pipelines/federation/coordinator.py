"""The coordinator: it lets sites in, asks them round by round, refuses what cannot be used, and adds up the rest.

It never has a row of a site. In a secure sum it never has an update of one site either.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError
from pipelines.federation.aggregate import RULES, Rule, Updates, bounded
from pipelines.federation.answers import checked
from pipelines.federation.engine import Answers, Hub
from pipelines.federation.messages import PROTOCOL, Message, of_error
from pipelines.federation.secure_sum import Keys, as_numbers, summed, threshold_of, verify
from pipelines.federation.settings import FederationConfig
from pipelines.federation.site import code_digest
from pipelines.settings import setting

Floats = NDArray[np.float64]
_TRIES = 2  # of a round
_STRIKES = 3  # rounds with what cannot be used, after which a site is asked no more
_CLOCK = 300.0  # seconds by which a site's clock may differ


@dataclass(kw_only=True)
class Member:
    """What is known of one site. measured: what it says, of its own rows, of the weights that each round has left."""

    name: str
    refused: str = ""
    rows: float | None = None
    rounds: int = 0
    late: int = 0
    cut: int = 0
    faults: list[str] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)
    decision: dict[str, Any] | None = None


class Coordinator:
    """Leads the sites of `hub`. `told` is what they are told of the federation before they take part."""

    def __init__(
        self, hub: Hub, config: FederationConfig, told: Mapping[str, Any], alive: Callable[[], None] = lambda: None
    ) -> None:
        self.hub, self.config, self.told, self._alive = hub, config, told, alive
        self.members = {name: Member(name=name) for name in config.names}
        self._tardy: set[str] = set()
        self._number = self._round = self._last = 0

    def admit(self, inputs: list[dict[str, Any]], classes: list[str]) -> None:
        """Wait for the sites, and let in those that fit.

        Raises:
            PlatformError: ``code="no_sites"``, nobody came; ``code="quorum"``, too few.
        """
        came = self.hub.wait_for_sites(self.config.join, self._alive)
        if not came:
            raise PlatformError(
                f"none of {len(self.members)} sites has come within {self.config.join:g} s",
                detail=f"expected: {', '.join(self.members)}",
                fix=f"start the sites, and see their logs; or wait longer: {setting('federation.join', 600)}",
                code="no_sites",
            )
        wanted = {"protocol": PROTOCOL, "code": code_digest(), "inputs": inputs, "classes": classes}
        asked = {**self.told, "sites": len(came)}
        for name, answer in self._ask("hello", dict.fromkeys(came, Message(document=asked)), self.config.join).items():
            self.members[name].refused = _why_not(answer.document, wanted, time.time())
        for name in set(self.members) - came:
            self.members[name].refused = f"it did not come within {self.config.join:g} s"
        self._need(self._admitted(), "when the federation began")

    def sums(self, width: int) -> Floats:
        """The sums of all sites, so many numbers."""
        for _ in range(_TRIES):
            total = self._secure("sums", {}, {}, width) if self.config.secure else self._plain_sums(width)
            if total is not None:
                return total
        raise self._too_few("for the sums that scaling needs")

    def learn(
        self,
        number: int,
        arrays: Mapping[str, NDArray[Any]],
        about: Mapping[str, Any],
        loss: Callable[[Floats], float],
    ) -> tuple[Floats, int]:
        """One round: what is added to the weights, and by how many sites.

        Raises:
            PlatformError: ``code="quorum"``: too few sites have answered, twice.
        """
        self._round = number
        told, width = {**about, "round": number, "deadline": self.config.deadline}, len(arrays["weights"])
        for _ in range(_TRIES):
            self._alive()
            if self.config.secure:
                total = self._secure("learn", told, arrays, width)
                if total is not None:
                    return total, self._last
                continue
            good = self._good(self._ask("learn", self._to_all(told, arrays), self.config.deadline, width))
            if len(good) >= self.config.least:
                self._note(good)
                return self._combined(good, loss), len(good)
        raise self._too_few(f"in round {number}")

    def finish(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Give every site the model, which it judges by rules of its own, and end."""
        for name, answer in self._ask("finish", self._to_all({}, arrays), self.config.deadline).items():
            error = answer.document.get("error")
            self.members[name].decision = (
                {"accepted": False, "reasons": [error["headline"]]} if error else dict(answer.document)
            )
        self.end()

    def end(self) -> None:
        """Say that it is over."""
        self.hub.tell(self.members, Message(document={"ask": "end", "number": self._next()}))

    def _plain_sums(self, width: int) -> Floats | None:
        found = self._good(self._ask("sums", self._to_all({}, {}), self.config.deadline, width))
        if len(found) < self.config.least:
            return None
        return np.asarray(np.sum([answer.arrays["sums"] for answer in found.values()], axis=0))

    def _good(self, answers: Answers) -> dict[str, Message]:
        """Those without an error; who sends what cannot be used is noted, and asked no more after some rounds."""
        good = {}
        for name, answer in answers.items():
            error, member = answer.document.get("error"), self.members[name]
            if not error:
                good[name] = answer
                continue
            member.faults.append(error["headline"])
            if len(member.faults) >= _STRIKES:
                member.refused = error["headline"]
        return good

    def _note(self, answers: Mapping[str, Message]) -> None:
        """Count the round, and what sites say of the weights that the last one has left."""
        for name, answer in answers.items():
            member, found = self.members[name], answer.document.get("measured")
            member.rounds += 1
            if not self.told["privacy"]:
                member.rows = float(answer.document["weight"])
            if found:
                member.measured.append({"round": float(self._round - 1), **{key: float(found[key]) for key in found}})

    def _combined(self, good: Mapping[str, Message], loss: Callable[[Floats], float]) -> Floats:
        rows = np.array([float(answer.document["weight"]) for answer in good.values()])
        values = np.stack([answer.arrays["update"].astype(np.float64) for answer in good.values()])
        updates, cut = bounded(Updates(values=values, rows=rows), self._bound())
        for name, was in zip(good, cut, strict=True):
            self.members[name].cut += int(was)
        return RULES[self.config.rule](updates, Rule(trim=self.config.trim, loss=loss))

    def _bound(self) -> float:
        """Private updates are cut by their sites; noise makes them all about as long."""
        return 0.0 if self.told["privacy"] else self.config.norm_bound

    def _secure(
        self, ask: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], width: int
    ) -> Floats | None:
        """One secure sum: of updates the mean by rows, of sums the sum; None where too many have gone."""
        sum_id, seconds = secrets.token_hex(16), self.config.deadline

        def step(name: str, requests: Mapping[str, Message]) -> Answers:
            given = {
                key: Message(document={**one.document, "sum": sum_id}, arrays=one.arrays)
                for key, one in requests.items()
            }
            return self._good(self._ask(name, given, seconds, width))

        shown = {name: Keys.from_dict(one.document) for name, one in step("keys", self._to_all({}, {})).items()}
        keys = {name: one.as_dict() for name, one in shown.items() if self._signed(name, sum_id, one)}
        if len(keys) < max(3, self.config.least):
            return None
        shares = step("shares", dict.fromkeys(keys, Message(document={"keys": keys})))
        if len(shares) < max(threshold_of(len(keys)), self.config.least):
            return None
        mine = {
            name: {sender: given.document[name] for sender, given in shares.items() if sender != name}
            for name in shares
        }
        asked = {name: Message(document={**about, "shares": mine[name]}, arrays=arrays) for name in shares}
        masked = {name: one.arrays["masked"] for name, one in step(ask, asked).items()}
        if len(masked) < max(threshold_of(len(keys)), self.config.least):
            return None
        told = {"survivors": sorted(masked), "dropped": sorted(set(shares) - set(masked))}
        opened = step("unmask", dict.fromkeys(masked, Message(document=told)))
        gave = {
            name: {other: bytes.fromhex(share) for other, share in one.document.items()} for name, one in opened.items()
        }
        try:
            words = summed(sum_id, masked, {name: shown[name] for name in keys}, shares, gave)
        except PlatformError:
            return None
        self._last = len(masked)
        for name in masked:
            self.members[name].rounds += int(ask == "learn")
        numbers = as_numbers(words)
        return numbers[:-1] if ask == "sums" else numbers[:-1] / max(numbers[-1], 1.0)

    def _signed(self, name: str, sum_id: str, keys: Keys) -> bool:
        """Whether they are the site's own; the others would not go on with keys that are not."""
        try:
            verify(name, sum_id, keys, self.hub.check)
        except PlatformError as err:
            self._good({name: of_error(err)})
            return False
        return True

    def _admitted(self) -> list[str]:
        return [name for name, member in self.members.items() if not member.refused]

    def _to_all(self, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Message]:
        return dict.fromkeys(self._admitted(), Message(document=about, arrays=arrays))

    def _ask(self, what: str, requests: Mapping[str, Message], seconds: float, width: int = 0) -> Answers:
        number = self._next()
        numbered = {
            name: Message(document={**one.document, "ask": what, "number": number}, arrays=one.arrays)
            for name, one in requests.items()
        }

        def patient(left: set[str], answered: int) -> bool:
            # Who was late is asked again, and not waited for again where there are enough others.
            return bool(left - self._tardy) or answered < self.config.least

        answers = self.hub.ask(numbered, seconds, patient)
        missing = set(requests) - set(answers)
        for name in missing & self.hub.present():
            self.members[name].late += 1
        self._tardy = (self._tardy | missing) - set(answers)
        return {name: checked(what, name, numbered[name], answer, width) for name, answer in answers.items()}

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _need(self, there: Iterable[str], when: str) -> None:
        if len(list(there)) < self.config.least:
            raise self._too_few(when)

    def _too_few(self, when: str) -> PlatformError:
        connected = self.hub.present()
        said = [f"{name}: {_state(member, connected)}" for name, member in self.members.items()]
        config = self.config
        return PlatformError(
            f"too few sites {when}: {config.least} of {len(self.members)} are needed",
            detail=f"within {config.deadline:g} s; " + "; ".join(said),
            fix="see to these sites, then go on: fairlead run --resume RUN; or ask for fewer: "
            + setting("federation.quorum", round(config.quorum / 2, 2)),
            code="quorum",
        )


def _state(member: Member, connected: set[str]) -> str:
    if member.refused:
        return member.refused
    if member.name not in connected:
        return "it is gone"
    return member.faults[-1] if member.faults else f"it was late {member.late} times" if member.late else "it answered"


def _why_not(answer: Mapping[str, Any], wanted: Mapping[str, Any], now: float) -> str:
    """Why a site cannot take part; empty where it can."""
    if error := answer.get("error"):
        return str(error["headline"])
    if answer.get("protocol") != wanted["protocol"] or answer.get("code") != wanted["code"]:
        return f"it runs other code ({answer.get('code')}, here {wanted['code']}): give both the same version"
    if abs(ahead := float(answer.get("time", 0.0)) - now) > _CLOCK:
        return f"its clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}: set it"
    if answer.get("classes") != wanted["classes"]:
        return f"it has other classes: {answer.get('classes')}, here {wanted['classes']}"
    return _other_inputs(answer.get("inputs") or [], wanted["inputs"])


def _other_inputs(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    names, known = [one.get("name") for one in theirs], [one["name"] for one in ours]
    if names != known:
        lacks, more = [n for n in known if n not in names], [str(n) for n in names if n not in known]
        said = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"has {', '.join(more)}"] * bool(more)
        return f"it has another schema: it {' and '.join(said) or 'has columns in another order'}"
    for one, other in zip(theirs, ours, strict=True):
        for key in ("dtype", "categories"):
            if one.get(key) != other.get(key):
                return f"it has another schema: {key} of {other['name']} is {one.get(key)}, here {other.get(key)}"
    return ""
