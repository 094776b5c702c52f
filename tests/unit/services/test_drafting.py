"""Lists that two versions draft: who put what there, who is credited, and what a rollout makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Signature
from contracts.problems.ranking import Ranked
from contracts.rollout_policy import Limit, RolloutPolicy
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Label, Prediction, line_of
from services.feedback.writing import write_labels
from services.model.scoring import Scored
from services.recommend.drafting import Others, drafted
from services.rollout import envoy, evidence
from services.rollout.envoy import Address, Routing
from services.rollout.labels import count_labels
from services.rollout.observation import Counts
from tests.problem_bundles import lists

ASKED: list[dict[str, str]] = []


class Champion(BaseHTTPRequestHandler):
    """Another version, which always lists f and e."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        ASKED.append(dict(self.headers.items()))
        entries = [{"item": item, "score": 0.5, "why": "popular", "because": []} for item in "fe"]
        body = json.dumps({"version": "2", "items": entries}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def champion() -> Iterator[str]:
    """Where it is."""
    server = HTTPServer(("127.0.0.1", 0), Champion)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    ASKED.clear()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(served: Any, **headers: str) -> Any:
    return served.client.post("/recommend", json={"user": "ann", "k": 3}, headers=headers).json()


def test_both_versions_draft_and_the_log_says_who_put_what_there(
    serve_bundle: Any, tmp_path: Path, champion: str
) -> None:
    served = serve_bundle(lists(tmp_path), drafts=True, predictions={"folder": str(tmp_path / "log")})
    answers = [ask(served, **{"x-draft-with": champion, "x-api-key": "k"}) for _ in range(12)]
    assert {len(answer["items"]) for answer in answers} == {3}
    firsts = {answer["items"][0]["item"] for answer in answers}
    assert firsts == {"c", "f"}, "chance says who is first"
    told = {name.lower(): value for name, value in ASKED[0].items()}
    assert (told["x-drafting"], told["x-api-key"]) == ("1", "k")
    alone = ask(served)
    quiet = ask(served, **{"x-drafting": "1"})
    assert [one["item"] for one in alone["items"]] == [one["item"] for one in quiet["items"]] == ["c", "b", "d"]
    served.runtime.log.close()
    lines = [json.loads(line) for file in (tmp_path / "log").rglob("*.jsonl") for line in file.open()]
    assert {line["id"] for line in lines} == {answer["id"] for answer in [*answers, alone]}, "shown lists alone"
    for line in lines[:12]:
        own = {"c": "3", "b": "3", "d": "3", "f": "2", "e": "2"}
        assert line["team"] == [own[item] for item in line["items"]]
        assert line["propensity"] == []
    assert "team" not in lines[12]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "other.example:80", "10.0.0.1:80", "127.0.0.1:80/x", "a b:1", ""])
def test_a_version_that_is_elsewhere_or_away_leaves_the_own_list(
    serve_bundle: Any, tmp_path: Path, address: str, champion: str
) -> None:
    served = serve_bundle(lists(tmp_path), drafts=True)
    assert [one["item"] for one in ask(served, **{"x-draft-with": address})["items"]] == ["c", "b", "d"]
    assert not ASKED


def test_nobody_drafts_where_the_operator_did_not_say_so(serve_bundle: Any, tmp_path: Path, champion: str) -> None:
    served = serve_bundle(lists(tmp_path))
    assert [one["item"] for one in ask(served, **{"x-draft-with": champion})["items"]] == ["c", "b", "d"]
    assert not ASKED


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@settings(max_examples=50, deadline=None)
@given(NAMES, NAMES, st.integers(0, 1000))
def test_a_draft_has_each_item_once_and_takes_turns(mine: list[str], theirs: list[str], seed: int) -> None:
    none = ((),) * len(mine)
    own = Ranked(tuple(mine), (0.5,) * len(mine), ("similar",) * len(mine), none, (1.0,) * len(mine))
    answers = np.empty(1, dtype=object)
    answers[0] = own
    others = Others("2", [{"item": item, "score": 0.1, "why": "new", "because": []} for item in theirs])
    alone = Scored(inputs={}, answers=answers, decided=[mine], reasons=[])
    scored = drafted(alone, "3", others, np.random.default_rng(seed))
    found: Ranked = scored.answers[0]
    assert len(set(found.items)) == len(found.items) == len(mine)
    assert set(found.items) <= {*mine, *theirs}
    for round_ in range(0, len(found.team) - 1, 2):
        before = set(found.items[:round_])
        left = [set(some) - before for some in (mine, theirs)]
        if min(map(len, left)) > 1:
            assert set(found.team[round_ : round_ + 2]) == {"2", "3"}, "each once in a round"


def draft_log(folder: Path, wins: float, count: int = 600) -> datetime:
    """Lists of versions 2 and 3, of which 3 gets the click in a share of `wins`."""
    rng, start = np.random.default_rng(1), datetime.now(UTC) - timedelta(minutes=5)
    for number in range(count):
        at = start + timedelta(seconds=number / 10)
        identifier = f"{int(at.timestamp() * 1000):012x}{int(rng.integers(1 << 60)):020x}"
        team = ["2", "3"] if rng.random() < 0.5 else ["3", "2"]
        known: dict[str, Any] = {
            "digest": "",
            "inputs": {},
            "entities": {},
            "flags": (),
            "latency_ms": 1.0,
            "schema": 2,
        }
        answer = {"items": ["a", "b"], "team": team}
        one = Prediction(id=identifier, time=at, model="m", version="3", answer=answer, **known)
        append(layout.own_file(layout.home(str(folder), "m")), line_of(one))
        winner = "3" if rng.random() < wins else "2"
        taken = [["a", "b"][team.index(winner)]] if number % 3 else ["a", "b"]  # of each third nobody wins
        write_labels(str(folder), "m", [Label(id=identifier, label=taken, time=at)])
    return start


@pytest.mark.parametrize(("wins", "says"), [(0.2, "worse"), (0.8, "proven")])
def test_clicks_are_credited_to_versions_and_judge_a_rollout(tmp_path: Path, wins: float, says: str) -> None:
    start = draft_log(tmp_path, wins)
    output = {"problem": "ranking", "k": 2, "longest": 5, "catalogue": 6}
    signature = Signature.model_validate({"inputs": [], "output": output})
    found = count_labels(str(tmp_path), "m", signature, {}, start, datetime.now(UTC))
    assert sum(one.drafted for one in found.values()) == 400
    assert sum(one.labelled for one in found.values()) == 0, "a drafted list is nobody's own"
    assert found["3"].lost / found["3"].drafted == pytest.approx(1 - wins, abs=0.1)
    assert found["2"].lost / found["2"].drafted == pytest.approx(wins, abs=0.1)
    policy = RolloutPolicy(drafted=Limit(tolerated=0.1, margin=0.2))
    versions = [Counts(drafted=found[name].drafted, lost=found[name].lost) for name in ("2", "3")]
    trail = evidence.first_trail("drafted", Counts(), Counts())
    for part in range(1, 11):  # as they come
        grown = [
            Counts(drafted=one.drafted * part // 10 - one.drafted * (part - 1) // 10,
                   lost=one.lost * part // 10 - one.lost * (part - 1) // 10)
            for one in versions
        ]  # fmt: skip
        trail = evidence.extended({"drafted": trail}, policy, *grown)["drafted"]
    assert evidence.verdict("drafted", trail, policy, *versions).says == says
    assert "drafted" not in evidence.judged(RolloutPolicy())
    assert {"latency", "answers"}.isdisjoint(evidence.judged(policy)), "they are not one version's own"


def test_the_router_tells_the_candidate_alone_where_the_champion_is() -> None:
    addresses = {"1": Address("10.0.0.1", 3000), "2": Address("slot-b", 3000)}
    routing = Routing(versions=addresses, champion="2", candidate="1", weight=20, drafts=True)
    (host,) = envoy.routes(routing)["virtual_hosts"]
    candidate, other = host["routes"][-1]["route"]["weighted_clusters"]["clusters"]
    assert candidate["request_headers_to_add"][0]["header"] == {"key": envoy.DRAFT_HEADER, "value": "slot-b:3000"}
    assert ("request_headers_to_add" in other, other["request_headers_to_remove"]) == (False, [envoy.DRAFT_HEADER])
    plain = envoy.routes(routing.model_copy(update={"drafts": False}))
    assert "request_headers_to_add" not in json.dumps(plain)
    assert plain["virtual_hosts"][0]["routes"][-1]["request_headers_to_remove"] == [envoy.DRAFT_HEADER]
