"""Features of payments: habits of the customer, risk of the terminal, and the request against both.

The sources are written by ``pipelines/tasks/fraud/features.py``: a row whenever something becomes known.
"""

from __future__ import annotations

from datetime import timedelta

from feast import FeatureService, FeatureView, Field, FileSource, RequestSource
from feast.types import Float64, Int64, String, UnixTimestamp

from feature_repo.entities import customer, terminal
from feature_repo.stores.on_demand import on_demand_view
from feature_repo.transforms.fraud import PAYMENT_FEATURES

_MONTH = timedelta(days=30)  # after which all windows are empty

customer_windows = FeatureView(
    name="customer_windows",
    entities=[customer],
    ttl=_MONTH,
    source=FileSource(name="customer_windows", path="customer_windows.parquet", timestamp_field="known_at"),
    schema=[
        Field(name="customer_id", dtype=String),
        *[Field(name=f"customer_payments_{days}d", dtype=Int64) for days in (1, 7, 30)],
        *[Field(name=f"customer_mean_{days}d", dtype=Float64) for days in (1, 7, 30)],
        Field(name="customer_std_30d", dtype=Float64),
        Field(name="customer_mean_before_7d", dtype=Float64, description="of the 30 days, without the last 7"),
        Field(name="customer_mean_earlier", dtype=Float64, description="60 to 14 days ago"),
        Field(name="customer_median", dtype=Float64, description="of the last 30 payments"),
        *[Field(name=f"customer_large_{days}d", dtype=Int64) for days in (3, 7, 14)],
        Field(name="customer_last_payment", dtype=Float64, description="seconds since 1970, UTC"),
    ],
)

terminal_windows = FeatureView(
    name="terminal_windows",
    entities=[terminal],
    ttl=_MONTH,
    source=FileSource(name="terminal_windows", path="terminal_windows.parquet", timestamp_field="known_at"),
    schema=[
        Field(name="terminal_id", dtype=String),
        *[Field(name=f"terminal_payments_{days}d", dtype=Int64) for days in (1, 7, 30)],
        *[Field(name=f"terminal_labelled_{days}d", dtype=Int64) for days in (1, 7, 30)],
        *[Field(name=f"terminal_risk_{days}d", dtype=Float64) for days in (1, 7, 30)],
        *[Field(name=f"terminal_risk_last_{last}", dtype=Float64) for last in (2, 3, 5)],
        Field(name="terminal_frauds_30d", dtype=Int64),
        Field(name="terminal_first_fraud", dtype=Float64, description="of these, seconds since 1970, UTC"),
        Field(name="terminal_last_fraud", dtype=Float64, description="of these, seconds since 1970, UTC"),
    ],
)

payment_request = on_demand_view(
    name="payment_request",
    transform="feature_repo.transforms.fraud:payment_request",
    sources=[
        RequestSource(
            name="payment",
            schema=[Field(name="amount", dtype=Float64), Field(name="event_time", dtype=UnixTimestamp)],
        ),
        customer_windows,
        terminal_windows,
    ],
    schema=[Field(name=name, dtype=Float64) for name in PAYMENT_FEATURES],
)

fraud_v1 = FeatureService(name="fraud_v1", features=[customer_windows, terminal_windows, payment_request])
