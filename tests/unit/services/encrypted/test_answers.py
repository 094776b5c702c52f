"""A client that encrypts, a service that computes, and neither sees what is the other's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tenseal

from contracts.bundle import Bundle
from contracts.encrypted import REACH, SLOTS, key_id, open_linear
from contracts.errors import PlatformError
from tests.unit.services.conftest import BundleMaker, Served, Server
from tests.unit.services.encrypted.conftest import MODELS, client_of, columns_of, rows_of


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
    assert np.abs(decrypted[0][width:] - decrypted[1][width:]).max() > 100  # unused slots are answered with noise


def test_unused_slots_of_columns_are_answered_with_noise(logistic: Served) -> None:
    client = client_of(logistic)
    _, slots = client._prepared(rows_of(2))
    frames = [client._encrypted(np.full(SLOTS, column[0])) for column in slots.T]  # asks 4,096 rows, says 2
    found = client._decrypted(client._answers("columns", 2, frames, 1)[0])
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert (np.abs(found[2:] - found[0]) > 1).mean() > 0.99


def test_what_lies_in_slots_that_are_not_used_does_not_reach_the_answer(logistic: Served) -> None:
    """Numbers so large that no mask would hide their products."""
    client = client_of(logistic)
    _, slots = client._prepared(rows_of(1))
    width = slots.shape[1]
    honest, large = np.zeros(SLOTS), np.full(SLOTS, 3e5)
    honest[:width] = large[:width] = slots[0]
    for values in (honest, large):
        found = client._decrypted(client._answers("rows", 1, [client._encrypted(values)], 1)[0])
        assert np.abs(found[width:]).max() < REACH + 1
    frames = [client._encrypted(np.concatenate([column, np.full(SLOTS - 1, 3e5)])) for column in slots.T]
    found = client._decrypted(client._answers("columns", 1, frames, 1)[0])
    assert np.abs(found[1:]).max() < REACH + 1


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
