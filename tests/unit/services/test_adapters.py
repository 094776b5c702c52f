"""Adapters behind one endpoint: each row by its own, kept, counted, evicted, refused, forgotten and never lost."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import metric_names as names
from contracts import storage
from contracts.adapter import Adapter, read_adapter
from contracts.errors import PlatformError
from services.adapters.forgetting import forget_adapters
from services.adapters.layer import Example
from services.adapters.layers.classification import LogitLayer
from services.adapters.posterior import Posterior
from services.adapters.store import AdapterStore, remove_all
from services.feedback.hashing import hashed
from services.settings import AdapterSettings
from tests.problem_bundles import lists
from tests.s3_folder import FolderClient

SALT, BASE = "salt", "ab" * 32


def entity_of(name: str) -> str:
    return hashed(SALT.encode(), name)


def an_adapter(**changes: Any) -> Adapter:
    given: dict[str, Any] = {"layer": "logits-1", "base": BASE, "entity": "e" * 32, "version": 1}
    tensors = {"mean": np.ones(4, np.float32), "precision": np.ones(4, np.float32)}
    return Adapter(**{**given, "tensors": tensors, **changes})


def personal(tmp_path: Path, **adapters: Any) -> dict[str, Any]:
    """The settings of a service with adapters."""
    return {
        "adapters": {"folder": str(tmp_path / "adapters"), **adapters},
        "predictions": {"salt": SALT},
    }


def recommend(served: Any, **body: Any) -> Any:
    answer = served.client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def feedback(served: Any, identifier: str, label: Any) -> Any:
    return served.client.post("/feedback", json={"labels": [{"id": identifier, "label": label}]})


def read_outcomes(served: Any, model: str) -> dict[str, float]:
    found = {one: served.metric(names.ADAPTER_READS, model=model, outcome=one) for one in names.ADAPTER_OUTCOMES}
    return {outcome: count for outcome, count in found.items() if count}


def test_an_adapter_is_read_as_it_was_written() -> None:
    one = an_adapter(version=7, tensors={"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int32)})
    again = read_adapter(one.to_bytes())
    assert (again.layer, again.base, again.entity, again.version) == (one.layer, BASE, one.entity, 7)
    assert {name: (part.dtype, part.tolist()) for name, part in again.tensors.items()} == {
        name: (part.dtype, part.tolist()) for name, part in one.tensors.items()
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.binary(max_size=8))
def test_a_file_that_is_cut_or_changed_is_refused_or_whole(cut: int, noise: bytes) -> None:
    data = an_adapter().to_bytes()
    for wrong in (data[:cut], data[:cut] + noise + data[cut + len(noise) :]):
        with contextlib.suppress(PlatformError):
            found = read_adapter(wrong)
            assert all(np.isfinite(one).all() for one in found.tensors.values())
    with pytest.raises(PlatformError, match="not an adapter"):
        read_adapter(data[:-1])


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(PlatformError, match="not an adapter") as caught:
        read_adapter(an_adapter(tensors={"mean": np.array([1, np.nan], np.float32)}).to_bytes())
    assert "mean" in str(caught.value.detail)


def test_a_click_changes_the_next_list_and_teaches_once(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), **personal(tmp_path))
    first = recommend(served, user="eve", k=5)
    assert "adapter_missing" in first["flags"]
    assert feedback(served, first["id"], ["d"]).json()["learned"] == 1
    second = recommend(served, user="eve", k=5)
    assert "adapter_missing" not in second["flags"]
    assert [one["item"] for one in second["items"]][:2] == ["f", "e"], "of the kind that was clicked"
    assert "d" not in [one["item"] for one in second["items"]], "it was taken"
    assert feedback(served, first["id"], ["d"]).json()["learned"] == 0, "it was learned before"
    assert feedback(served, first["id"], ["d", "b"]).json()["learned"] == 1, "of which one item is new"
    assert feedback(served, "0" * 32, ["d"]).json()["learned"] == 0, "nobody knows the answer"
    updates = {one: served.metric(names.ADAPTER_UPDATES, model="ranking", outcome=one)
               for one in names.ADAPTER_UPDATE_OUTCOMES}  # fmt: skip
    assert updates == {"learned": 2, "repeated": 1, "unknown": 1, "failed": 0}
    (kept,) = (tmp_path / "adapters").rglob("*.safetensors")
    assert kept.name == "000000000002.safetensors"
    assert "eve" not in str(kept)
    assert b"eve" not in kept.read_bytes()
    assert recommend(served, user="bob", k=5)["items"] != second["items"], "others are as they were"


def test_who_has_no_adapter_gets_what_the_base_alone_answers(serve_bundle: Any, tmp_path: Path) -> None:
    plain, served = serve_bundle(lists(tmp_path)), serve_bundle(lists(tmp_path / "b"), **personal(tmp_path))
    for body in ({"user": "ann", "k": 4}, {"items": ["d"]}, {"user": "new", "diversity": 0.7}):
        assert recommend(served, **body)["items"] == recommend(plain, **body)["items"]
    assert recommend(served, items=["d"])["flags"] == [], "who names nobody is told nothing"
    assert read_outcomes(served, "ranking") == {"missing": 2}
    assert recommend(served, user="ann")["flags"] == ["adapter_missing"]
    assert read_outcomes(served, "ranking") == {"missing": 2, "hit": 1}


@pytest.mark.parametrize(
    ("changes", "flag", "outcome"),
    [
        ({"base": "cd" * 32}, "adapter_of_another_base", "other_base"),
        ({"layer": "lora-1"}, "adapter_unreadable", "unreadable"),
        ({"entity": "0" * 32}, "adapter_unreadable", "unreadable"),
        ({"tensors": {"mean": np.ones(3, np.float32)}}, "adapter_unreadable", "unreadable"),
        (None, "adapter_unreadable", "unreadable"),
    ],
)
def test_an_adapter_that_does_not_fit_is_left_out_flagged_and_counted(
    serve_bundle: Any, tmp_path: Path, changes: dict[str, Any] | None, flag: str, outcome: str
) -> None:
    bundle = lists(tmp_path)
    store = AdapterStore(str(tmp_path / "adapters"), "ranking", bundle.digest)
    right = {"mean": np.ones(4, np.float32), "precision": np.ones(4, np.float32), "taken": np.zeros(0, np.int32)}
    known = {"layer": "taste-1", "base": bundle.digest, "entity": entity_of("ann"), "tensors": right}
    data = b"broken" if changes is None else an_adapter(**{**known, **changes}).to_bytes()
    assert store.put(entity_of("ann"), 1, data)
    served, plain = serve_bundle(bundle, **personal(tmp_path)), serve_bundle(bundle)
    answer = recommend(served, user="ann")
    assert answer["flags"] == [flag]
    assert answer["items"] == recommend(plain, user="ann")["items"]
    assert read_outcomes(served, "ranking") == {outcome: 1}
    assert feedback(served, answer["id"], ["b"]).json()["learned"] == 1, "the next version takes its place"
    assert recommend(served, user="ann")["flags"] == []


def test_who_has_one_of_another_base_alone_is_flagged(serve_bundle: Any, tmp_path: Path) -> None:
    AdapterStore(str(tmp_path / "adapters"), "ranking", "cd" * 32).put(entity_of("ann"), 1, an_adapter().to_bytes())
    served = serve_bundle(lists(tmp_path), **personal(tmp_path))
    assert recommend(served, user="ann")["flags"] == ["adapter_of_another_base"]


def test_memory_is_bounded_and_who_was_evicted_is_found_again(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), **personal(tmp_path, cached=2, fresh_seconds=60))
    for user in ("u1", "u2", "u3"):
        feedback(served, recommend(served, user=user)["id"], ["d"])
    assert served.metric(names.ADAPTERS_HELD, model="ranking") == 2
    assert served.metric(names.ADAPTERS_EVICTED, model="ranking") >= 1
    assert recommend(served, user="u1")["items"] == recommend(served, user="u3")["items"]
    assert recommend(served, user="u1")["flags"] == ["unknown_user"]


def test_who_is_forgotten_has_no_adapter_any_more(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), **personal(tmp_path, fresh_seconds=0))
    feedback(served, recommend(served, user="ann")["id"], ["b"])
    where = AdapterSettings(folder=str(tmp_path / "adapters"))
    assert forget_adapters(where, "ranking", "bob", SALT) == 0
    assert forget_adapters(where, "ranking", "ann", SALT) == 1
    assert recommend(served, user="ann")["flags"] == ["adapter_missing"]
    assert not [one for one in (tmp_path / "adapters").rglob("*") if entity_of("ann") in one.name]
    assert forget_adapters(AdapterSettings(), "ranking", "ann", SALT) == 0


def test_many_who_learn_at_once_lose_nothing(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), **personal(tmp_path))
    answers = [recommend(served, user="ann", k=5)["id"] for _ in range(8)]
    threads = [threading.Thread(target=feedback, args=(served, one, ["b"])) for one in answers]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    (kept,) = (tmp_path / "adapters").rglob("*.safetensors")
    assert read_adapter(kept.read_bytes()).version == 8


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path)
    (tmp_path / "lake").mkdir()
    client = FolderClient(tmp_path)
    monkeypatch.setattr(storage, "_client", lambda: client)
    return "s3://lake/adapters"


def test_a_version_is_put_only_by_who_has_seen_the_last_one(place: str) -> None:
    store, person = AdapterStore(place, "m", BASE), "e" * 32
    assert store.last(person).version == 0
    assert store.put(person, 1, b"one")
    assert not store.put(person, 1, b"other")
    assert store.put(person, 2, b"two")
    assert not store.put(person, 2, b"late")
    assert not store.put(person, 4, b"who has never seen 3")
    assert (store.last(person).version, store.last(person).data) == (2, b"two")
    assert AdapterStore(place, "m", "cd" * 32).last(person).others
    assert remove_all(place, "m", person) == 1
    assert not store.put(person, 3, b"of what is gone"), "who has seen what was forgotten must not bring it back"
    assert store.last(person).version == 0


def test_what_settings_lack_is_said_at_the_start(serve_bundle: Any, tmp_path: Path) -> None:
    given = personal(tmp_path)
    for wrong, key in (
        ({**given, "predictions": {}}, "predictions.salt"),
        ({**given, "adapters": {"folder": "s3://lake/adapters"}}, "adapters.redis"),
        ({**given, "adapters": {**given["adapters"], "entity": "shop"}}, "adapters.entity"),
    ):
        served = serve_bundle(lists(tmp_path / key), **wrong)
        assert served.runtime.failure.context["key"] == key


def test_any_batch_of_people_is_listed_as_one_by_one(serve_bundle: Any, tmp_path: Path) -> None:
    served = serve_bundle(lists(tmp_path), **personal(tmp_path, fresh_seconds=60))
    for user, item in (("ann", "d"), ("bob", "c"), ("eve", "f"), ("eve", "b")):
        feedback(served, recommend(served, user=user, k=5)["id"], [item])

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["", "ann", "bob", "eve", "new"]), st.integers(1, 5)), min_size=1))
    def check(rows: list[tuple[str, int]]) -> None:
        together = served.predict(*({"user": user, "k": k} for user, k in rows)).json()["predictions"]
        for (user, k), found in zip(rows, together, strict=True):
            alone = recommend(served, user=user, k=k)
            assert found["items"] == alone["items"]
            assert "adapter_missing" in alone["flags"] if user == "new" else "adapter_missing" not in found["flags"]

    check()


CUSTOMERS = ("", "north", "south", "west")


@pytest.fixture
def shops(serve: Any, make_bundle: Any, tmp_path: Path) -> Any:
    """A classifier of payments over which three customers have each an adapter, one of them of another base."""
    bundle = make_bundle()
    store, rng = AdapterStore(str(tmp_path / "adapters"), "payments", bundle.digest), np.random.default_rng(3)
    for name in CUSTOMERS[1:]:
        base = "cd" * 32 if name == "west" else bundle.digest
        mean = np.concatenate([rng.uniform(0.5, 2, 2), rng.normal(0, 2, 2)]).astype(np.float32)
        tensors = {"mean": mean, "precision": np.ones(4, np.float32)}
        data = an_adapter(base=base, entity=entity_of(name), tensors=tensors).to_bytes()
        store.put(entity_of(name), 1, data)
    return serve(bundle, **personal(tmp_path, entity="customer", fresh_seconds=60))


def test_any_batch_of_customers_is_answered_as_one_by_one(shops: Any) -> None:
    one = st.tuples(st.floats(0, 1000), st.sampled_from([*CUSTOMERS, "nobody"]))

    @settings(max_examples=25, deadline=None)
    @given(st.lists(one, min_size=1, max_size=12))
    def check(rows: list[tuple[float, str]]) -> None:
        asked = [{"amount": amount, "country": "AT", "customer": customer} for amount, customer in rows]
        together = shops.predict(*asked).json()["predictions"]
        for (amount, _), row, found in zip(rows, asked, together, strict=True):
            (alone,) = shops.predict(row).json()["predictions"]
            assert found["probabilities"]["fraud"] == pytest.approx(alone["probabilities"]["fraud"], abs=1e-12)
            assert found["flags"] == alone["flags"]
            if row["customer"] in ("", "nobody", "west"):
                assert found["probabilities"]["fraud"] == pytest.approx(amount / 1000, abs=1e-12)

    check()
    flags = [shops.predict({"amount": 5, "country": "AT", "customer": one}).json()["predictions"][0]["flags"]
             for one in ("north", "west", "nobody", "")]  # fmt: skip
    assert flags == [[], ["adapter_of_another_base"], ["adapter_missing"], []]
    assert shops.predict({"amount": 5, "country": "AT"}).json()["predictions"][0]["flags"] == []


def test_a_customer_s_labels_move_its_own_answers(shops: Any) -> None:
    def chance(customer: str) -> float:
        (found,) = shops.predict({"amount": 500, "country": "AT", "customer": customer}).json()["predictions"]
        return float(found["probabilities"]["fraud"])

    before = {name: chance(name) for name in ("new", "north", "")}
    for _ in range(12):
        (one,) = shops.predict({"amount": 500, "country": "AT", "customer": "new"}).json()["predictions"]
        assert feedback(shops, one["id"], "fraud").json()["learned"] == 1
    after = {name: chance(name) for name in before}
    assert before["new"] == pytest.approx(0.5)
    assert after["new"] > 0.8
    assert (after["north"], after[""]) == (before["north"], before[""])


def test_offsets_and_factors_of_a_customer_are_recovered() -> None:
    class Output:
        classes = ("a", "b", "c")

    layer, rng = LogitLayer(None, Output), np.random.default_rng(5)  # type: ignore[arg-type]
    adapter: Adapter | None = None
    base = rng.dirichlet(np.full(3, 0.7), 1500)
    logits = np.log(base) + np.array([1.5, 0.0, -1.5])
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = [rng.choice(3, p=row) for row in true]
    for start in range(0, 1200, 10):
        examples = [Example(shown=base[at].tolist(), parts=["abc"[labels[at]]]) for at in range(start, start + 10)]
        adapter = an_adapter(tensors=layer.learned(adapter, examples))
    found = layer.apply(lambda: base[1200:], [adapter] * 300).answers
    losses = [-np.log(one[np.arange(300), labels[1200:]]).mean() for one in (base[1200:], found, true[1200:])]
    assert losses[1] < losses[0] - 0.7 * (losses[0] - losses[2])


def test_a_posterior_is_the_mode_of_its_loss_and_only_gains_precision() -> None:
    rng = np.random.default_rng(2)
    rows, labels = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    prior = Posterior(np.zeros(4), np.full(4, 0.5))
    designs = np.stack([np.zeros_like(rows), rows], axis=1)
    found = prior.learned(designs, labels)
    chances = 1 / (1 + np.exp(-rows @ found.mean))
    assert rows.T @ (chances - labels) + 0.5 * found.mean == pytest.approx(np.zeros(4), abs=1e-5)
    assert found.precision == pytest.approx(0.5 + (rows**2).T @ (chances * (1 - chances)))
    assert prior.learned(designs[:0], labels[:0]) is prior
