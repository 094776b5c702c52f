"""Features: which there are, and what is served of them now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.guard import endpoints_of, told
from fairlead.tables import Listing


@told
def features(*, profile: str | None = None) -> Listing[Mapping[str, Any]]:
    """The feature views of every task: keys, number of features, time to live, and until when they are known."""
    from deploy.cli.features.feature_views import all_views, duration

    def cells(view: Mapping[str, Any]) -> dict[str, Any]:
        known = str(view["known_until"])[:16].replace("T", " ")
        shown = {"view": view["view"], "task": view["task"], "by": view["keys"], "features": view["features"]}
        return {**shown, "time to live": duration(view["ttl_seconds"]), "known until": known}

    empty = ["No features yet. A run writes those of its task: fairlead.run(TASK)"]
    return Listing(all_views(endpoints_of(profile)), cells, empty)


@told
def feature_view(name: str, *, profile: str | None = None) -> Listing[Mapping[str, Any]]:
    """The features of a view with some values as they are served, and the share of entities that lack them.

    Raises:
        PlatformError: there is no view of the name.
    """
    from deploy.cli.features.feature_views import duration, one_view

    view = one_view(endpoints_of(profile), name)

    def cells(feature: Mapping[str, Any]) -> dict[str, Any]:
        return {key: feature[key] for key in ("name", "dtype", "missing", "values")}

    newest = duration(view["newest_seconds_ago"])
    title = f"{name} by {', '.join(view['keys'])}: {view['entities']:,} entities online, the newest value {newest} old"
    return Listing(view["features"], cells, title=title)
