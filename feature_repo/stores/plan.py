"""Compile a feature service of a Feast registry to a plan: plain JSON that join and reader need instead of Feast."""

from __future__ import annotations

from typing import Any

from contracts.errors import PlatformError
from feature_repo.stores.packed_rows import Layout

_DTYPES = {
    "String": "string",
    "Bytes": "bytes",
    "Int64": "int64",
    "Int32": "int32",
    "Float64": "float64",
    "Float32": "float32",
    "Bool": "bool",
    "UnixTimestamp": "timestamp",
}


def compile_plan(store: Any, service: str, timestamp: str) -> dict[str, Any]:
    """The plan of feature service `service`; `timestamp` is the column with the moment of an event.

    Returns:
        project, service, timestamp, ``views`` (name, join_keys, features, ttl_seconds, source, timestamp_field,
        created_field, and ``fields`` and ``schema`` of its online rows), ``transforms`` (function, outputs) and
        ``request`` (fields that a request carries).
    """
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    views, transforms = [], []
    request: dict[str, str] = {}
    for projection in store.get_feature_service(service).feature_view_projections:
        if projection.name in on_demand:
            view = on_demand[projection.name]
            transforms.append({"function": _function(view), "outputs": [field.name for field in projection.features]})
            for source in view.source_request_sources.values():
                request |= {field.name: _dtype(field, view.name) for field in source.schema}
        else:
            views.append(compile_view(store.get_feature_view(projection.name), projection.features))
    return {
        "project": store.project,
        "service": service,
        "timestamp": timestamp,
        "views": views,
        "transforms": transforms,
        "request": [{"name": name, "dtype": dtype} for name, dtype in request.items() if name != timestamp],
    }


def compile_view(view: Any, features: Any = None) -> dict[str, Any]:
    """One feature view of a plan; `features` picks some of its fields."""
    source = view.batch_source
    fields = stored_fields(view)
    return {
        "name": view.name,
        "join_keys": [{"name": field.name, "dtype": _dtype(field, view.name)} for field in view.entity_columns],
        "features": [{"name": field.name, "dtype": _dtype(field, view.name)} for field in features or view.features],
        "fields": fields,  # of the online store's rows, used or not
        "schema": Layout(fields).digest.hex(),
        "feast_fields": {field["name"]: _feast_field(f"{view.name}:{field['name']}") for field in fields},
        "columns": {mine: theirs for theirs, mine in (source.field_mapping or {}).items()},
        "ttl_seconds": int(view.ttl.total_seconds()) if view.ttl else 0,
        "source": source.path,
        "timestamp_field": source.timestamp_field,
        "created_field": source.created_timestamp_column or "",
    }


def stored_fields(view: Any) -> list[dict[str, str]]:
    """What the online store's rows of a view hold, in an order that does not depend on how the view was written."""
    fields = [{"name": field.name, "dtype": _dtype(field, view.name)} for field in view.features]
    return sorted(fields, key=lambda field: field["name"])


def _function(view: Any) -> str:
    if "transform" not in view.tags:
        raise PlatformError(
            f"on-demand feature view {view.name} names no function",
            fix='give it tags={"transform": "feature_repo.transforms.<task>:<function>"}',
            code="bad_feature_view",
        )
    function: str = view.tags["transform"]
    return function


def _feast_field(name: str) -> str:
    """How Feast's Redis store names a feature in its hashes."""
    from feast.infra.online_stores.helpers import _mmh3

    return str(_mmh3(name).hex())


def _dtype(field: Any, view: str) -> str:
    name = str(field.dtype)
    if name.startswith("Array(") and name[6:-1] in _DTYPES:
        return f"array<{_DTYPES[name[6:-1]]}>"
    if name not in _DTYPES:
        raise PlatformError(
            f"feature view {view}: field {field.name} has type {name}",
            detail=f"accepted: {', '.join(_DTYPES)}, Array(...)",
            fix="use one of these types",
            code="bad_feature_view",
        )
    return _DTYPES[name]
