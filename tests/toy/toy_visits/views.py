"""What is known of a guest."""

from __future__ import annotations

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.types import Float64, String

from feature_repo.stores.on_demand import on_demand_view

guest = Entity(name="guest", join_keys=["guest"], value_type=ValueType.STRING)
past = FeatureView(
    name="visits_past",
    entities=[guest],
    ttl=timedelta(days=365),
    source=FileSource(name="visits_past", path="visits_past.parquet", timestamp_field="known_at"),
    schema=[Field(name="guest", dtype=String), Field(name="past_mean", dtype=Float64)],
)
bill = on_demand_view(
    name="visits_bill",
    transform="toy_visits.ratio:to_mean",
    sources=[RequestSource(name="visits_request", schema=[Field(name="amount", dtype=Float64)]), past],
    schema=[Field(name="amount_to_mean", dtype=Float64)],
)
service = FeatureService(name="visits_v1", features=[past, bill])
