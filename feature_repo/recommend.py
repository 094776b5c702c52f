"""Features of lists: what a person and each candidate did of late, and the moment of the request.

The sources are written by ``pipelines/recipes/recommend/windows.py``: a row whenever something happens. A service moves
the online rows on as people are shown items and click them, see ``services/recommend/windows.py``; other producers may
push whole rows to the push sources.
"""

from __future__ import annotations

from datetime import timedelta

from feast import FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast.types import Float32, Float64, String, UnixTimestamp

from contracts.ranking_features import WINDOWED
from feature_repo.entities import listed_item, person
from feature_repo.stores.on_demand import on_demand_view
from feature_repo.transforms.recommend import counts_of

_MONTH = timedelta(days=30)  # after which all windows are empty


def _source(name: str) -> PushSource:
    history = FileSource(name=name, path=f"{name}.parquet", timestamp_field="known_at")
    return PushSource(name=f"{name}_pushed", batch_source=history)


user_windows = FeatureView(
    name="user_windows",
    entities=[person],
    ttl=_MONTH,
    source=_source("user_windows"),
    schema=[
        Field(name="user", dtype=String),
        *[Field(name=name, dtype=Float32) for name in counts_of("user")],
        Field(name="user_last", dtype=Float64, description="moment of the last event, seconds since 1970, UTC"),
        Field(name="user_last_click", dtype=Float64, description="seconds since 1970, UTC"),
        Field(name="user_last_clicks", dtype=String, description="items, the latest last"),
    ],
)

item_windows = FeatureView(
    name="item_windows",
    entities=[listed_item],
    ttl=_MONTH,
    source=_source("item_windows"),
    schema=[
        Field(name="item", dtype=String),
        *[Field(name=name, dtype=Float32) for name in counts_of("item")],
        Field(name="item_last", dtype=Float64, description="moment of the last event, seconds since 1970, UTC"),
    ],
)

list_request = on_demand_view(
    name="list_request",
    transform="feature_repo.transforms.recommend:list_request",
    sources=[
        RequestSource(name="list_of_items", schema=[Field(name="time", dtype=UnixTimestamp)]),
        user_windows,
        item_windows,
    ],
    schema=[Field(name=name, dtype=Float64) for name in WINDOWED],
)

recommend_v1 = FeatureService(name="recommend_v1", features=[user_windows, item_windows, list_request])
