"""Encrypted inference: a client that encrypts, a service that computes, and neither sees what is the other's."""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal

from contracts.bundle import Bundle, Input
from contracts.encrypted import MODULI, SLOTS, Head, key_id, open_linear, pack, unpack
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.tabular_engine import matrix
from deploy.cli.serving.encrypted import EncryptedClient
from pipelines.training.onnx_tabular import LinearForm, save_linear
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, save_scorecard
from tests.unit.services.conftest import BundleMaker, Served, Server

INPUTS: list[dict[str, Any]] = [
    {"name": "amount", "dtype": "float64"},
    {"name": "age", "dtype": "float64"},
    {"name": "kind", "dtype": "string", "categories": ["a", "b", "c"]},
]
SIGNATURE: dict[str, Any] = {"inputs": INPUTS, "classes": ["good", "bad"]}
DECISION = {"positive": "bad", "threshold": 0.4, "false_positive_cost": 1.0, "false_negative_cost": 5.0}
BINARY = {"content-type": "application/octet-stream"}
PUBLIC = {"save_secret_key": False, "save_relin_keys": False, "save_galois_keys": False}
MODELS = ("platt", "isotonic", "scorecard")


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with values missing, and categories that no model has seen."""
    rng = np.random.default_rng(seed)
    rows = [
        {"amount": float(rng.lognormal(5, 2)), "age": float(rng.normal(40, 12)), "kind": str(rng.choice(list("abcx")))}
        for _ in range(count)
    ]
    for row in rows:
        for name in row:
            if rng.random() < 0.1:
                row[name] = None
    return rows


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "amount": np.array([row["amount"] for row in rows], dtype=np.float64),
        "age": np.array([row["age"] for row in rows], dtype=np.float64),
        "kind": np.array([row["kind"] for row in rows], dtype=object),
    }


@pytest.fixture
def linear(make_bundle: BundleMaker, tmp_path: Path) -> Callable[[str], Bundle]:
    """A bundle of one of `MODELS`, as recipes write them."""

    def make(kind: str) -> Bundle:
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        model = tmp_path / "source" / "model"
        model.mkdir(parents=True)
        inputs = [Input(**item) for item in INPUTS]
        rows = rows_of(400, seed=7)
        columns = columns_of(rows)
        if kind == "scorecard":
            data = matrix(inputs, columns)
            y = (np.nan_to_num(np.log(data[:, 0]), nan=5.0) > 5).astype(np.int64)
            card = fit_scorecard(inputs, data, y, np.ones(len(y)), ScorecardConfig(), 0)
            save_scorecard(card, {"kind": "platt", "a": 0.9, "b": -0.1}, model)
        else:
            form = LinearForm(
                median=np.array([150.0, 40.0, 1.0]),
                mean=np.array([5.0, 3.7, 0.6]),
                deviation=np.array([1.9, 0.3, 0.4]),
                weights=np.array([1.25, -0.731, 0.4417]),
                absent=np.array([0.311, 0.0, -0.27]),
                bias=-0.37,
                log_scale=True,
            )
            isotonic = {"kind": "isotonic", "x": [-3.0, 0.0, 2.0], "y": [0.01, 0.3, 0.99]}
            save_linear(
                form, isotonic if kind == "isotonic" else {"kind": "platt", "a": 1.3, "b": 0.2}, model / "model.onnx"
            )
        engine = "scorecard" if kind == "scorecard" else "onnx"
        first = rows[0]
        given: dict[str, Any] = {"engine": engine, "decision": DECISION, "recipe": kind}
        bundle = make_bundle(SIGNATURE, [(first, [0.5, 0.5])], **given)
        answer = load_engine(bundle).predict(columns_of([first]))[0].tolist()
        return make_bundle(SIGNATURE, [(first, answer)], **given)

    return make


def client_of(served: Served, seen: list[bytes] | None = None) -> EncryptedClient:
    def ask(path: str, body: bytes | None) -> tuple[int, bytes]:
        if seen is not None:
            seen.append(body or b"")
        answer = served.client.get(path) if body is None else served.client.post(path, content=body, headers=BINARY)
        return answer.status_code, answer.content

    return EncryptedClient(ask)


@pytest.fixture
def logistic(linear: Callable[[str], Bundle], serve_bundle: Server) -> Served:
    return serve_bundle(linear("platt"), encrypted={"enabled": True})


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_decrypted_is_what_the_service_answers_to_open_rows(
    linear: Callable[[str], Bundle], serve_bundle: Server, kind: str
) -> None:
    served = serve_bundle(linear(kind), encrypted={"enabled": True})
    client = client_of(served)
    for count in (1, 3, SLOTS + 5):  # one row; packed by rows; packed by columns, in two requests
        rows = rows_of(count, seed=count)
        found = client.predict(rows)
        plain = [
            one
            for at in range(0, count, 1000)
            for one in served.client.post("/predict", json={"instances": rows[at : at + 1000]}).json()["predictions"]
        ]
        assert len(found) == count
        for ours, theirs in zip(found, plain, strict=True):
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-4)
            assert ours["flags"] == theirs["flags"]
            if abs(theirs["probability"] - 0.4) > 1e-4:
                assert ours["label"] == theirs["label"]
            assert ("points" in ours) == (kind == "scorecard")
    metrics = served.client.get("/metrics").text
    counted = {
        f'layout="{layout}"': f"{rows:.1f}" for layout, rows in (("rows", 1 + 1 + 3 + 1 + 6 + 1), ("columns", SLOTS))
    }
    for label, expected in counted.items():
        line = next(one for one in metrics.splitlines() if one.startswith("fairlead_encrypted_rows") and label in one)
        assert line.endswith(f" {expected}")


def test_the_error_of_a_sum_is_below_what_is_promised(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    bundle = linear("platt")
    client = client_of(serve_bundle(bundle, encrypted={"enabled": True}))
    one = open_linear(bundle)
    rows = rows_of(2000, seed=3)
    slots = one.form.slots(bundle.document.signature.inputs, columns_of(rows))
    exact = slots @ one.weights + one.bias
    for layout in ("rows", "columns"):
        assert np.abs(client._scored(layout, slots) - exact).max() < 1e-4


def test_the_secret_key_is_in_nothing_that_is_sent(logistic: Served) -> None:
    sent: list[bytes] = []
    client = client_of(logistic, sent)
    client.predict(rows_of(2))
    secret = client._context.secret_key().data
    assert secret is not None
    public = next(body for body in sent if key_id(body) == client.key)
    loaded = tenseal.context_from(public)
    assert not loaded.is_private()
    assert not loaded.has_secret_key()
    whole = client._context.serialize(save_public_key=False, save_secret_key=True)
    # Its bytes lie at the end of what would be private: no window of them is anywhere in what left.
    part = whole[-4096:-4000]
    assert part in whole
    assert not any(part in body for body in sent)
    kept = logistic.runtime.encrypted._keys  # type: ignore[attr-defined]
    assert all(not one.is_private() for one in kept.values())


def test_no_weight_is_published(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    for kind in MODELS:
        bundle = linear(kind)
        said = serve_bundle(bundle, encrypted={"enabled": True}).client.get("/encrypted").text
        one = open_linear(bundle)
        document = json.loads(said)
        numbers = {abs(round(one, 9)) for one in numbers_of({key: document[key] for key in ("form", "link")})}
        hidden = {abs(round(float(weight), 9)) for weight in (*one.weights, one.bias) if abs(weight) > 30 or weight % 1}
        assert hidden
        assert not numbers & hidden


def numbers_of(document: Any) -> Iterator[float]:
    """All numbers of a JSON document."""
    if isinstance(document, dict | list):
        for one in document.values() if isinstance(document, dict) else document:
            yield from numbers_of(one)
    elif isinstance(document, int | float):
        yield float(document)


def test_answers_hide_what_each_input_contributes(logistic: Served, linear: Callable[[str], Bundle]) -> None:
    """In the layout rows each slot is masked: products differ from call to call, and their sums do not."""
    client = client_of(logistic)
    _, slots = client._prepared(rows_of(1))
    decrypted = []
    for _ in range(2):
        frames = [client._encrypted(slots.ravel())]
        decrypted.append(client._decrypted(client._answers("rows", 1, frames, 1)[0]))
    width = slots.shape[1]
    first, second = (one[:width] for one in decrypted)
    assert first.sum() == pytest.approx(second.sum(), abs=1e-3)
    assert np.abs(first - second).min() > 1e-3
    assert np.abs(first).max() > 100
    assert np.abs(decrypted[0][width:]).min() >= 0
    assert np.abs(decrypted[0][width:] - decrypted[1][width:]).max() > 100  # unused slots are answered with noise


def test_unused_slots_of_columns_are_answered_with_noise(logistic: Served) -> None:
    client = client_of(logistic)
    _, slots = client._prepared(rows_of(2))
    frames = [client._encrypted(np.full(SLOTS, column[0])) for column in slots.T]  # asks 4,096 rows, says 2
    found = client._decrypted(client._answers("columns", 2, frames, 1)[0])
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert (np.abs(found[2:] - found[0]) > 1).mean() > 0.99


def test_budget_is_kept_per_caller(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    served = serve_bundle(linear("platt"), encrypted={"enabled": True, "budget_rows": 5, "budget_seconds": 100})
    client = client_of(served)
    client.predict(rows_of(2))  # and the first one again, as a proof
    with pytest.raises(PlatformError, match="budget of encrypted rows is spent") as err:
        client.predict(rows_of(2))
    assert "2 of 5 rows are left" in err.value.detail
    client.predict(rows_of(1))
    client_of(served).predict(rows_of(4))  # without API keys, other keys are another caller


def test_holder_of_an_api_key_gets_no_second_budget_by_new_keys(
    linear: Callable[[str], Bundle], serve_bundle: Server, tmp_path: Path
) -> None:
    from services.server.auth import make_key

    key, line = make_key("shop")
    (tmp_path / "keys").write_text(line + "\n")
    served = serve_bundle(
        linear("platt"), keys_file=str(tmp_path / "keys"), encrypted={"enabled": True, "budget_rows": 5}
    )
    assert served.client.get("/encrypted").status_code == 401
    served.client.headers["authorization"] = f"Bearer {key}"
    client_of(served).predict(rows_of(3))
    with pytest.raises(PlatformError, match="budget"):
        client_of(served).predict(rows_of(2))


def test_keys_that_were_put_out_go_along_with_the_request(
    linear: Callable[[str], Bundle], serve_bundle: Server
) -> None:
    served = serve_bundle(linear("platt"), encrypted={"enabled": True, "max_keys": 1})
    first, second = client_of(served), client_of(served)
    for client in (first, second, first):
        assert len(client.predict(rows_of(2))) == 2
    assert "fairlead_encrypted_keys" in served.client.get("/metrics").text
    assert len(served.runtime.encrypted._keys) == 1  # type: ignore[attr-defined]


def test_models_that_are_not_linear_do_not_become_ready(make_bundle: BundleMaker, serve: Server) -> None:
    served = serve(make_bundle(recipe="lightgbm"), encrypted={"enabled": True})
    failure = served.runtime.failure
    assert failure is not None
    assert failure.code == "not_encryptable"
    assert "logistic, and scorecard" in failure.fix
    assert "lightgbm" in failure.detail


def test_without_the_setting_there_is_nothing(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    served = serve_bundle(linear("platt"))
    assert served.client.get("/encrypted").status_code == 404
    with pytest.raises(PlatformError, match="no encrypted rows") as err:
        client_of(served)
    assert "--encrypted" in err.value.fix
    assert "/encrypted" not in served.client.get("/openapi.json").json()["paths"]


def other_keys(degree: int = 8192, moduli: tuple[int, ...] = MODULI, scale: int = 40) -> Any:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=list(moduli), n_threads=1)
    context.global_scale = 2.0**scale
    return context


def bad_keys() -> Iterator[tuple[str, bytes, str]]:
    yield "empty", b"", "foreign-keys"
    yield "garbage", b"\x00" * 5000, "foreign-keys"
    yield "with the secret key", other_keys().serialize(save_secret_key=True), "secret-key"
    yield "another degree", other_keys(4096, (40, 20, 40)).serialize(**PUBLIC), "foreign-keys"
    yield "other moduli", other_keys(moduli=(60, 40, 40, 60)).serialize(**PUBLIC), "foreign-keys"
    yield "another scale", other_keys(scale=30).serialize(**PUBLIC), "foreign-keys"
    yield "without public key", other_keys().serialize(save_public_key=False, save_secret_key=False), "foreign-keys"
    bfv = tenseal.context(tenseal.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193)
    yield "another scheme", bfv.serialize(**PUBLIC), "foreign-keys"
    whole = other_keys().serialize(**PUBLIC)
    yield "cut off", whole[: len(whole) // 2], "foreign-keys"


@pytest.mark.parametrize(("keys", "code"), [pytest.param(keys, code, id=name) for name, keys, code in bad_keys()])
def test_keys_that_do_not_fit_are_refused(logistic: Served, keys: bytes, code: str) -> None:
    answer = logistic.client.post("/encrypted/keys", content=keys, headers=BINARY)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(code)
    assert not logistic.runtime.encrypted._keys  # type: ignore[attr-defined]


def test_bodies_are_bounded(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    served = serve_bundle(linear("platt"), encrypted={"enabled": True, "max_body_bytes": 1 << 20})
    post = served.client.post
    assert post("/encrypted/keys", content=b"x" * ((1 << 20) + 1), headers=BINARY).status_code == 413
    assert post("/encrypted/score", content=b"x" * ((1 << 20) + 1), headers=BINARY).status_code == 413
    assert post("/encrypted/score", json={}).status_code == 415
    client = client_of(served)  # whose requests are as small as they have to be
    assert len(client.predict(rows_of(SLOTS))) == SLOTS


def ask(served: Served, client: EncryptedClient, frames: list[bytes], **head: Any) -> Any:
    given = {"key": client.key, "published": client.published.id, "layout": "rows", "rows": 1, **head}
    return served.client.post("/encrypted/score", content=pack([json.dumps(given).encode(), *frames]), headers=BINARY)


def test_requests_that_do_not_fit_are_refused(logistic: Served) -> None:
    client = client_of(logistic)
    good = client._encrypted(np.zeros(5))
    assert ask(logistic, client, [good]).status_code == 200
    cases: list[tuple[list[bytes], dict[str, Any], int, str]] = [
        ([good, good], {}, 422, "invalid-input"),
        ([], {}, 422, "invalid-input"),
        ([good], {"rows": 0}, 422, "invalid-input"),
        ([good], {"rows": SLOTS}, 422, "invalid-input"),
        ([good] * 5, {"layout": "columns", "rows": SLOTS + 1}, 422, "invalid-input"),
        ([good], {"layout": "diagonal"}, 422, "invalid-input"),
        ([good], {"surprise": 1}, 422, "invalid-input"),
        ([good], {"key": "../../etc/passwd"}, 422, "invalid-input"),
        ([good], {"key": "0" * 32}, 404, "unknown-key"),
        ([good], {"published": "0" * 32}, 409, "another-version"),
        ([good], {"attached": True}, 422, "invalid-input"),
    ]
    for frames, head, status, code in cases:
        answer = ask(logistic, client, frames, **head)
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (status, code), head
    answer = logistic.client.post("/encrypted/score", content=b"\x00\x00\x10\x00abc", headers=BINARY)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (400, "malformed-frames")


def test_ciphertexts_that_do_not_fit_are_refused(logistic: Served) -> None:
    client = client_of(logistic)
    own, library = client._context, client._library
    full = [0.0] * SLOTS
    wrong = {
        "garbage": b"\x01" * 1000,
        "empty": b"",
        "of another scale": library.ckks_vector(own, full, scale=2.0**30).serialize(),
        "of another degree": library.ckks_vector(other_keys(16384), full).serialize(),
        "of other moduli": library.ckks_vector(other_keys(moduli=(60, 40, 40, 60)), full).serialize(),
        "of few slots": library.ckks_vector(own, [1.0, 2.0]).serialize(),
        "of many slots": library.ckks_vector(own, full + full).serialize(),
        "computed with": (library.ckks_vector(own, full) * 2.0).serialize(),
        "cut off": client._encrypted(np.zeros(3))[:-100],
    }
    for name, frame in wrong.items():
        answer = ask(logistic, client, [frame])
        assert answer.status_code == 422, name
        assert answer.json()["type"].endswith("bad-ciphertext"), name
        assert "ciphertext 0" in answer.json()["detail"]


def test_random_damage_never_ends_the_service(logistic: Served) -> None:
    client = client_of(logistic)
    good = client._encrypted(np.zeros(3))
    rng = random.Random(5)
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(rng.choice([1, 5, 200])):
            damaged[rng.randrange(rng.choice([100, len(good)]))] = rng.randrange(256)
        assert ask(logistic, client, [bytes(damaged)]).status_code in (200, 422)
    assert len(client.predict(rows_of(2))) == 2


def test_client_notices_rows_that_were_scored_under_other_keys(logistic: Served) -> None:
    other = client_of(logistic)
    client = client_of(logistic)
    client._encrypted = other._encrypted
    for rows in (1, 3000):
        with pytest.raises(PlatformError, match="do not decrypt to scores"):
            client.predict(rows_of(rows))


def test_rows_are_checked_by_the_client(logistic: Served) -> None:
    client = client_of(logistic)
    sent = client.sent
    with pytest.raises(PlatformError) as err:
        client.predict([{"amount": 1.0, "age": "old", "kind": "a"}])
    assert "instances[0].age" in err.value.detail
    with pytest.raises(PlatformError) as err:
        client.predict([*rows_of(1), {"amount": 1.0, "kind": "a"}])
    assert "instances[1].age" in err.value.detail
    assert client.sent == sent  # nothing left


def test_values_that_would_not_fit_are_refused_by_name(
    linear: Callable[[str], Bundle], serve_bundle: Server, make_bundle: BundleMaker
) -> None:
    client = client_of(serve_bundle(linear("platt"), encrypted={"enabled": True}))
    form = client.published.form.model_copy(update={"log_scale": False})
    client.published = client.published.model_copy(update={"form": form})
    with pytest.raises(PlatformError, match="too far") as err:
        client.predict([{"amount": 1e9, "age": 40.0, "kind": "a"}])
    assert "instances[0].amount" in err.value.detail


def test_weaker_parameters_are_refused_by_the_client(logistic: Served) -> None:
    def ask_weak(path: str, body: bytes | None) -> tuple[int, bytes]:
        document = logistic.client.get("/encrypted").json()
        document["scheme"]["poly_modulus_degree"] = 1024
        return 200, json.dumps(document).encode()

    with pytest.raises(PlatformError, match="other encryption parameters"):
        EncryptedClient(ask_weak)


def test_deadline_and_overload_are_answered(linear: Callable[[str], Bundle], serve_bundle: Server) -> None:
    served = serve_bundle(linear("platt"), encrypted={"enabled": True, "max_waiting": 1})
    client = client_of(served)
    frames = [client._encrypted(np.zeros(3))]
    model = served.runtime.encrypted  # type: ignore[attr-defined]
    slow = model._evaluator.rows

    def slower(*given: Any) -> Any:
        time.sleep(0.3)
        return slow(*given)

    model._evaluator.rows = slower
    served.client.headers["x-request-timeout-ms"] = "100"
    assert ask(served, client, frames).status_code == 504
    del served.client.headers["x-request-timeout-ms"]
    assert ask(served, client, frames).status_code == 200
    model._waiting = 1
    answer = ask(served, client, frames)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (429, "overloaded")


def test_nothing_of_a_row_is_logged(
    linear: Callable[[str], Bundle], serve_bundle: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    served = serve_bundle(linear("platt"), encrypted={"enabled": True}, predictions={"folder": str(folder)})
    with caplog.at_level(logging.DEBUG):
        client_of(served).predict([{"amount": 31337.25, "age": 41.0, "kind": "a"}])
        served.client.post("/encrypted/score", content=b"31337.25", headers=BINARY)
    assert "31337" not in caplog.text
    assert not [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]


def test_frames_come_back_whole() -> None:
    frames = [b"", b"a", b"\x00" * 70_000]
    assert unpack(pack(frames)) == frames
    with pytest.raises(ValueError, match="within frame 1"):
        unpack(pack(frames)[:6])
    assert Head(key="0" * 32, published="x", layout="rows", rows=1).attached is False
