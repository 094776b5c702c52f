"""Keys, ciphertexts, requests and rows that do not fit are refused, and nothing of them is told."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal

from contracts.bundle import Bundle
from contracts.encrypted import MODULI, SLOTS, Head, pack, unpack
from contracts.errors import PlatformError
from deploy.cli.serving.encrypted import EncryptedClient
from tests.unit.services.conftest import BundleMaker, Served, Server
from tests.unit.services.encrypted.conftest import BINARY, PUBLIC, client_of, rows_of


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
