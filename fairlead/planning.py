"""Before a training: what it will need, and which settings are best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.guard import profile_name, told
from fairlead.tables import Listing, html_table, text_table
from fairlead.training import Run, run


@dataclass(frozen=True)
class Plan:
    """What a training will need, as bands.

    Attributes:
        document: all that is known of it; what ``fairlead plan --json`` prints.
    """

    document: Mapping[str, Any] = field(repr=False)

    @property
    def fits(self) -> bool:
        """Whether this machine has the memory, or a node of the cluster; a run that does not fit is refused."""
        if placed := self.document.get("places"):
            return placed["fits"] is not False
        from pipelines.planned import FULL

        return bool(self.document["need"] <= FULL * self.document["limit"])

    @property
    def quality(self) -> Listing[Mapping[str, Any]]:
        """The gate's metric of all rows, of twice and of four times as many."""
        return Listing(self.document["learning"], lambda point: {"metric": self.document["metric"], **point})

    def cells(self) -> list[dict[str, Any]]:
        """Rows of a table: seconds, and MiB."""
        train = self.document["train"]
        rows: list[dict[str, Any]] = []
        if train:
            size = {key: value / 2**20 for key, value in train["memory_peak"].items()}
            rows = [{"": "training, s", **train["seconds"]}, {"": "memory, MiB", **size}]
        if steps := self.document.get("steps"):
            rows.append({"": "GPU memory, MiB", "likely": steps["gpu_memory"]["total"] / 2**20})
        name = self.document["metric"]
        for point in self.document["learning"]:
            ends = {key: point[key] for key in ("low", "likely", "high")}
            rows.append({"": f"{name}, {point['rows']:,} rows", **ends})
        return rows

    def __repr__(self) -> str:
        return text_table(self.cells()) + f"\n{'it fits here' if self.fits else 'it does not fit here'}"

    def _repr_html_(self) -> str:
        return html_table(self.cells()) + f"<p>{'It fits here.' if self.fits else 'It does not fit here.'}</p>"


@dataclass(frozen=True)
class Search(Run):
    """A run that trained the best of a search."""

    @property
    def found(self) -> Mapping[str, Any]:
        """What the search has found; empty where the run has failed."""
        return self.document.get("search") or {}

    @property
    def verdict(self) -> str:
        """What the search is worth on the test rows, in words."""
        return str(self.found.get("verdict", ""))

    @property
    def best(self) -> dict[str, Any]:
        """The settings of the best, for ``run(settings=...)``."""
        return dict((self.found.get("best") or {}).get("settings", {}))

    @property
    def trials(self) -> Listing[Mapping[str, Any]]:
        """What was tried, in order."""
        return Listing(
            self.found.get("trials", []),
            lambda one: {"trial": one["number"], "state": one["state"], **one["values"], **one["settings"]},
            title=self.verdict,
        )


@told
def plan(
    task: str,
    *,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str | Path = "",
    seconds: float = 60.0,
    profile: str | None = None,
) -> Plan:
    """What a training will need, measured by a few small ones; the run takes the data from the cache then.

    Args:
        settings, source: as of `run`.  seconds: for small trainings, of which three are made at least.

    Raises:
        PlatformError: what the data or a small training raise.
    """
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.plan import planned
    from pipelines.settings import assigned

    overrides = [assigned(key, value) for key, value in (settings or {}).items()]
    options = RunOptions(overrides=overrides, source=str(source), profile=profile_name(profile))
    return Plan(planned(task, recipe, seconds, options, lambda text: None))


class Federation(Run):
    """A run that was trained by sites."""

    @property
    def sites(self) -> Listing[Mapping[str, Any]]:
        """What each site did, and its decision about the model."""
        found = (self.document.get("federation") or {}).get("sites", [])
        shown = ("name", "rows", "rounds", "late", "refused")
        return Listing(found, lambda one: {name: one[name] for name in shown}, title=f"{len(found)} sites")


@told
def federate(
    task: str,
    *,
    recipe: str | None = None,
    clients: int = 10,
    split_by: str = "iid",
    secure: bool = False,
    settings: Mapping[str, Any] | None = None,
    source: str | Path = "",
    progress: bool = True,
    profile: str | None = None,
) -> Federation:
    """Train by simulated sites that keep their rows, and wait for it.

    Args:
        clients: sites, each a process of this machine.  split_by: how they share the rows: iid, dirichlet or a column.
        secure: hide single updates.  settings, source, progress: as of `run`, such as ``{"federation.rounds": 40}``.

    Raises:
        PlatformError: what cannot be federated, or too few sites.
    """
    from deploy.cli.training.federation import Federation as Asked
    from deploy.cli.training.federation import federable, federation_settings

    asked = Asked(clients=clients, split=split_by, secure=secure)
    told_settings = {**federation_settings(asked), **(settings or {})}
    able = federable(task, recipe)
    made = run(task, recipe=able, settings=told_settings, source=source, progress=progress, profile=profile)
    return Federation(made.document)


@told
def search(
    task: str,
    *,
    recipe: str | None = None,
    trials: int = 30,
    metrics: Sequence[str] = (),
    workers: int = 1,
    seconds: float = 0.0,
    name: str = "",
    settings: Mapping[str, Any] | None = None,
    source: str | Path = "",
    progress: bool = True,
    profile: str | None = None,
) -> Search:
    """Search the hyper-parameters of a recipe and train the best, and wait for it.

    Args:
        metrics: what is optimised, the first before the others; () is the gate's.  workers: processes at a time.
        seconds: no trial starts after so long; 0 for no limit.  name: goes on with the search of that name.
        settings, source, progress: as of `run`.

    Raises:
        PlatformError: a space, metric or limit that cannot be searched, or no trial that works.
    """
    from deploy.cli.training.search import SearchOptions, search_settings

    asked = SearchOptions(trials=trials, seconds=seconds, metrics=metrics, workers=workers, name=name)
    told_settings = {**search_settings(profile_name(profile), asked), **(settings or {})}
    made = run(task, recipe=recipe, settings=told_settings, source=source, progress=progress, profile=profile)
    return Search(made.document)
