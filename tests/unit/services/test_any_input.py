"""Whatever JSON arrives is answered or refused by name; nothing is a server error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["AT", "amount", "FP64", "BYTES", 0, 1, -1, 10**6])
)
WORDS = st.sampled_from(
    ["instances", "explain", "amount", "country", "inputs", "outputs", "name", "shape", "datatype", "data", "id"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=20
)
INSTANCES = st.lists(st.fixed_dictionaries({"amount": SCALARS, "country": SCALARS}), min_size=1, max_size=3)
TENSORS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["amount", "country"]),
            "shape": st.lists(st.integers(-1, 3), max_size=3),
            "datatype": st.sampled_from(["FP64", "FP32", "INT64", "BOOL", "BYTES"]),
            "data": st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3),
        }
    ),
    max_size=3,
)
BOUNDED = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def post(served: Any, path: str, body: Any) -> None:
    answer = served.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 413, 422), answer.text
    assert answer.status_code == 200 or answer.json()["title"]


def test_predict_never_fails(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())

    @BOUNDED
    @given(VALUES | INSTANCES.map(lambda rows: {"instances": rows}) | VALUES.map(lambda rows: {"instances": rows}))
    def check(body: Any) -> None:
        post(served, "/predict", body)

    check()


def test_infer_never_fails(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())

    @BOUNDED
    @given(VALUES | TENSORS.map(lambda inputs: {"inputs": inputs}) | VALUES.map(lambda inputs: {"inputs": inputs}))
    def check(body: Any) -> None:
        post(served, "/v2/models/payments/infer", body)

    check()
