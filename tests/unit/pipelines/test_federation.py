"""Coordinator and sites, joined without a network: who is let in, what is refused, and when there are too few."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.federation import coordinator, site
from pipelines.federation.certificates import check_names, make_certificates
from pipelines.federation.engine import Hub
from pipelines.federation.learner import Valid
from pipelines.federation.messages import Message
from pipelines.federation.models import model_of
from pipelines.federation.settings import FederationConfig
from pipelines.federation.site import DECISION, SiteRules
from pipelines.federation.splitting import shared_out
from pipelines.io.files import read_json
from pipelines.task import validated
from pipelines.training.boosting import LightGBMConfig
from pipelines.training.tabular import CostConfig, LogisticConfig
from tests.federation_parties import HOW, INPUTS, NETWORK, Parties, admitted, arrays, frame, rounds


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    return Parties(tmp_path)


@pytest.mark.parametrize("model", [NETWORK, LogisticConfig(), LogisticConfig(log_scale=False)])
def test_sites_agree_on_the_scale_of_all_rows_without_showing_one(parties: Parties, model: Any) -> None:
    import pandas as pd

    from contracts.tabular_engine import matrix
    from pipelines.evaluation.scoring import columns_of

    leader, hub = parties(FederationConfig(clients=3), model=model)
    found = arrays(admitted(leader), model)
    whole = pd.concat([frame(200, at) for at in range(3)])
    known = model_of(model, INPUTS)
    central = known.agree(known.sums(matrix(INPUTS, columns_of(whole, INPUTS))))
    assert found["mean"] == pytest.approx(central.mean)
    assert found["deviation"] == pytest.approx(central.deviation)
    answers = [answer for ask, _, answer in hub.sent if ask == "sums"]
    assert all(answer.arrays["sums"].size == 3 * len(central.mean) for answer in answers)


def test_a_secure_sum_gives_the_same_model_and_hides_every_update(parties: Parties) -> None:
    plain, _ = parties(FederationConfig(clients=4, norm_bound=0.0))
    secure, hub = parties(FederationConfig(clients=4, secure=True))
    given = [rounds(leader, arrays(admitted(leader)), 2)["weights"] for leader in (plain, secure)]
    assert given[1] == pytest.approx(given[0], abs=1e-4)
    learned = [answer for ask, _, answer in hub.sent if ask == "learn"]
    assert all(set(answer.arrays) == {"masked"} and not answer.document for answer in learned)


def test_who_does_not_fit_is_left_out_and_says_why(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, hub = parties(FederationConfig(clients=6, faults={"site-2": "schema"}, quorum=0.3))
    about: dict[str, dict[str, Any]] = {
        "site-3": {"code": "other"},
        "site-4": {"time": time.time() + 86_400},
        "site-5": {"classes": ["no"]},
    }

    def answering(name: str, found: Message, changed: Mapping[str, Any]) -> Any:
        return lambda request: Message(document={**found.document, **changed})

    told = Message(document={"ask": "hello", "sites": 6, **leader.told})
    for name, changed in about.items():
        one = hub.sites[name]
        monkeypatch.setattr(one, "answer", answering(name, one.answer(told), changed))
    admitted(leader)
    refused = {name: member.refused for name, member in leader.members.items()}
    assert "lacks income and has another" in refused["site-2"]
    assert "other code" in refused["site-3"]
    assert re.search(r"its clock is 86[34]\d\d s ahead", refused["site-4"])
    assert "other classes" in refused["site-5"]
    assert refused["site-1"] == refused["site-6"] == ""


def test_another_kind_of_column_is_named() -> None:
    ours = [one.model_dump() for one in INPUTS]
    theirs = [{**one, "categories": ["a", "c"]} if one["name"] == "kind" else one for one in ours]
    assert "categories of kind" in coordinator._other_inputs(theirs, ours)
    assert "another order" in coordinator._other_inputs(ours[::-1], ours)


def test_what_is_no_update_is_left_out_and_asked_no_more(parties: Parties) -> None:
    leader, hub = parties(FederationConfig(clients=5, faults={"site-1": "nan", "site-2": "shape"}))
    given = rounds(leader, arrays(admitted(leader)), 4)
    assert np.isfinite(given["weights"]).all()
    assert "not finite" in leader.members["site-1"].refused
    assert "shape" in leader.members["site-2"].refused
    assert [leader.members[name].rounds for name in ("site-1", "site-3")] == [0, 4]
    assert sum(ask == "learn" and name == "site-1" for ask, name, _ in hub.sent) == 3


def test_too_few_in_time_is_said_with_who_and_what_to_do(parties: Parties) -> None:
    leader, hub = parties(FederationConfig(clients=4, quorum=0.75))
    given = arrays(admitted(leader))
    hub.late = {"site-1", "site-4"}
    with pytest.raises(PlatformError, match="too few sites in round 1: 3 of 4") as failed:
        rounds(leader, given, 1)
    assert failed.value.code == "quorum"
    assert "site-1: it was late" in failed.value.detail
    assert "--set federation.quorum=0.38" in failed.value.fix


@pytest.mark.parametrize("secure", [False, True])
def test_one_that_comes_back_takes_part_again(parties: Parties, secure: bool) -> None:
    leader, hub = parties(FederationConfig(clients=4, secure=secure))
    given = arrays(admitted(leader))
    hub.late = {"site-2"}
    given = rounds(leader, given, 1)
    hub.late = set()
    rounds(leader, given, 1)
    assert [member.rounds for member in leader.members.values()] == [2, 1, 2, 2]


def test_nobody_there_is_said(parties: Parties) -> None:
    leader, hub = parties(FederationConfig(clients=2, join=0.1))
    hub.sites = {}
    with pytest.raises(PlatformError, match="none of 2 sites") as failed:
        admitted(leader)
    assert failed.value.code == "no_sites"


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (SiteRules(min_rows=500), "its 200 training rows"),
        (SiteRules(least_sites=9), "3 sites"),
        (SiteRules(secure=True), "not secure"),
        (SiteRules(max_epsilon=2.0), "epsilon None"),
    ],
)
def test_a_site_takes_part_by_its_own_rules(parties: Parties, rules: SiteRules, why: str) -> None:
    leader, _ = parties(FederationConfig(clients=3), rules=rules)
    with pytest.raises(PlatformError) as failed:
        admitted(leader)
    assert why in failed.value.detail


def test_a_site_judges_the_model_and_keeps_it(parties: Parties) -> None:
    leader, hub = parties(FederationConfig(clients=3))
    hub.sites["site-1"].rules = SiteRules(accept={"roc_auc": 1.0, "loss": 0.0})
    given = rounds(leader, arrays(admitted(leader)), 12)
    leader.finish({**given, "model": np.frombuffer(b"onnx", np.uint8)})
    decisions = [member.decision for member in leader.members.values()]
    assert [one and one["accepted"] for one in decisions] == [False, True, True]
    assert decisions[0] is not None
    assert len(decisions[0]["reasons"]) == 2
    assert read_json(parties.folder / "site-2" / DECISION)["accepted"]
    assert (parties.folder / "site-2" / "model.onnx").read_bytes() == b"onnx"
    assert hub.sent[-1][0] == "end"


def test_private_updates_are_cut_and_noisy_and_tell_nothing_else(parties: Parties) -> None:
    privacy = {"unit": "site", "clip": 0.5, "noise": 4.0, "least": 2, "epsilon": 3.0}
    leader, hub = parties(FederationConfig(clients=3), privacy=privacy)
    admitted(leader)
    with pytest.raises(PlatformError, match="too few sites for the sums"):
        leader.sums(6)
    width = model_of(NETWORK, INPUTS).count
    given = {"weights": np.zeros(width), "mean": np.zeros(2), "deviation": np.ones(2)}
    leader.learn(1, given, {"how": HOW, "seed": 7}, lambda step: 0.0)
    answers = [answer for ask, _, answer in hub.sent if ask == "learn"]
    assert all(answer.document == {"weight": 1.0} for answer in answers)
    deviation = np.std(np.concatenate([answer.arrays["update"] for answer in answers]))
    assert deviation == pytest.approx(2 * 0.5 * 4.0 / np.sqrt(2), rel=0.25)
    again = hub.sites["site-1"]._with_noise(np.zeros(width), privacy)
    assert not np.any(again == hub.sites["site-1"]._with_noise(np.zeros(width), privacy))


def test_private_training_of_a_site_is_noisy_by_its_own_steps(parties: Parties) -> None:
    privacy = {"unit": "row", "clip": 1.0, "noise": 50.0, "least": 2, "epsilon": 3.0, "drawn": 0.2, "steps": 5}
    leader, hub = parties(FederationConfig(clients=3), privacy=privacy)
    admitted(leader)
    width = model_of(NETWORK, INPUTS).count
    given = {"weights": np.zeros(width), "mean": np.zeros(2), "deviation": np.ones(2)}
    for _ in range(2):
        leader.learn(1, given, {"how": HOW, "seed": 7}, lambda step: 0.0)
    updates = [answer.arrays["update"] for ask, name, answer in hub.sent if ask == "learn" and name == "site-1"]
    assert not np.any(updates[0][updates[0] != 0] == updates[1][updates[0] != 0])  # same rows, weights and seed
    assert all(answer.document == {"weight": 1.0} for ask, _, answer in hub.sent if ask == "learn")


def test_what_a_private_federation_charges_is_every_step_that_a_row_may_be_in(tmp_path: Path) -> None:
    from pipelines.federation.train import _paid
    from pipelines.recipes.tabular.base import TabularRecipe
    from pipelines.training.privacy import PrivacyConfig, of_public_rows
    from pipelines.training.tabular import CostConfig

    def paid(**federation: Any) -> dict[str, Any]:
        asked = FederationConfig(clients=10, rounds=6, **federation)
        privacy, cost = PrivacyConfig(epsilon=3.0), CostConfig(rule="expected")
        recipe = TabularRecipe(recipe="network", model=NETWORK, privacy=privacy, cost=cost, federation=asked)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with of_public_rows():
            return _paid(recipe, folder)

    rows, sites = paid(drawn=0.25, local_epochs=2), paid(unit="site")
    assert (rows["releases"][0]["share"], rows["releases"][0]["steps"]) == (0.25, 6 * 2 * 4)
    assert (sites["releases"][0]["share"], sites["releases"][0]["steps"]) == (1.0, 6)
    assert 2.9 < rows["epsilon"] <= 3.0
    with pytest.raises(PlatformError, match=r"federation\.rule"):
        paid(unit="site", rule="trimmed")


GARBAGE = (
    Message(),
    Message(document={"weight": "many", "accepted": 1, "inputs": [1], "time": "now", "error": 3}),
    Message(document={"weight": 1.0, "share": "zz", "accepted": True, "reasons": [3], "measured": {"loss": "low"}}),
    Message(document={"weight": 1.0}, arrays={"update": np.zeros(3), "sums": np.zeros((2, 2)), "masked": np.zeros(9)}),
    Message(document={"weight": 1.0}, arrays={"update": np.zeros(19, np.int64), "sums": np.full(6, np.nan)}),
)


ASKED = (
    *((ask, False) for ask in ("hello", "sums", "learn", "finish")),
    *((ask, True) for ask in ("keys", "shares", "sums", "learn", "unmask")),
)


@pytest.mark.parametrize(
    ("ask", "secure", "garbage"),
    [(*one, (at + more) % len(GARBAGE)) for at, one in enumerate(ASKED) for more in (0, 2)],
)
def test_whatever_one_site_answers_the_others_go_on(
    parties: Parties, ask: str, garbage: int, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, hub = parties(FederationConfig(clients=5, secure=secure, quorum=0.8))
    one, own = hub.sites["site-5"], hub.sites["site-5"].answer
    monkeypatch.setattr(one, "answer", lambda asked: GARBAGE[garbage] if asked.document["ask"] == ask else own(asked))
    given = rounds(leader, arrays(admitted(leader)), 1)
    assert np.isfinite(given["weights"]).all()
    leader.finish({**given, "model": np.frombuffer(b"onnx", np.uint8)})
    assert all(leader.members[name].decision for name in ("site-1", "site-4"))


@pytest.mark.parametrize("split", ["iid", "dirichlet", "kind"])
def test_every_row_is_at_one_site(split: str) -> None:
    rows = frame(300)
    parts = shared_out(rows, 2, split, 0.5, 7)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    assert all(len(part) for part in parts)
    assert all(np.array_equal(one, two) for one, two in zip(parts, shared_out(rows, 2, split, 0.5, 7), strict=True))
    if split == "kind":
        assert {tuple(rows["kind"].iloc[part].unique()) for part in parts} == {("a",), ("b",)}


@pytest.mark.parametrize(
    ("sites", "split", "why"),
    [(3, "kind", "2 values"), (2, "nothing", "no column 'nothing'"), (400, "iid", "300 training rows")],
)
def test_rows_that_cannot_be_shared_out(sites: int, split: str, why: str) -> None:
    with pytest.raises(PlatformError, match=why):
        shared_out(frame(300), sites, split, 0.5, 7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 3, "secure": True, "rule": "trimmed"},
        {"clients": 2, "secure": True},
        {"clients": 3, "sites": ["a"]},
        {"sites": ["a", "b"]},
        {"clients": 2, "faults": {"site-3": "drop"}},
        {"clients": 2, "quorum": 0},
        {"clients": 2, "rule": "median"},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlatformError, match="invalid configuration"):
        validated(FederationConfig, wrong)


def test_what_cannot_be_federated_is_named() -> None:
    with pytest.raises(PlatformError, match="lightgbm cannot be federated"):
        model_of(LightGBMConfig(), INPUTS)
    with pytest.raises(PlatformError, match="'kind'"):
        model_of(NETWORK, [Input(name="kind", dtype="string")])
    with pytest.raises(PlatformError, match="'server'"):
        check_names(["bank-a", "server"])


def test_a_request_that_is_out_of_place_is_refused(parties: Parties) -> None:
    _, hub = parties(FederationConfig(clients=3))
    for ask in ("learn", "nothing"):
        with pytest.raises(PlatformError, match="site-1 refuses"):
            hub.sites["site-1"].answer(Message(document={"ask": ask}))


def test_weights_are_layers_and_log_odds_are_what_the_graph_answers(tmp_path: Path) -> None:
    import onnxruntime

    from contracts.tabular_engine import matrix
    from pipelines.evaluation.scoring import columns_of

    x = matrix(INPUTS, columns_of(frame(50), INPUTS))
    recipe, valid = SimpleNamespace(cost=CostConfig()), Valid(x=x, y=np.arange(50) % 2, losses=np.ones(50))
    for config in (NETWORK, LogisticConfig(), LogisticConfig(log_scale=False)):
        model = model_of(config, INPUTS, ["no", "yes"])
        spread = model.agree(model.sums(x))
        weights = np.random.default_rng(0).normal(size=model.count)
        raw = model.scores(weights, model.features(x, spread))
        model.finish(weights, spread, recipe, valid, True, tmp_path)
        graph = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
        found = graph.run(["probabilities"], {"features": x})[0][:, 1]
        assert found == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-5)


def test_a_coordinator_listens_on_ipv4_only(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="IPv4 only"):
        Hub("[::]:8443", tmp_path, ["bank-a"])
    with pytest.raises(PlatformError, match=r"no ca\.pem") as failed:
        Hub("localhost:8443", tmp_path, ["bank-a"])
    assert "fairlead federation certificates" in failed.value.fix
    make_certificates(tmp_path / "one", ["bank-a"], ["localhost"])
    make_certificates(tmp_path / "two", ["bank-a"], ["localhost"])
    shutil.copy(tmp_path / "two" / "ca.pem", tmp_path / "one" / "ca.pem")
    with pytest.raises(PlatformError, match="is not of the authority"):
        Hub("localhost:8443", tmp_path / "one", ["bank-a"])


def test_code_of_another_version_has_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = site.code_digest()
    root = Path(site.__file__).parents[1]
    for file in [root / "federation" / "site.py", *(root / "training").glob("*.py")]:
        made = tmp_path / file.relative_to(root)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("")
    monkeypatch.setattr(site, "__file__", str(tmp_path / "federation" / "site.py"))
    assert site.code_digest() != before
