"""Registered models: versions, cards, plots, comparisons, and who is the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

from fairlead.guard import endpoints_of, told
from fairlead.tables import Html, Listing, Page, Plots, bar, heading, html_table, text_table
from fairlead.training import gate_listing

if TYPE_CHECKING:
    import pandas as pd

    from contracts.bundle import Bundle
    from contracts.registry import ModelVersion


@dataclass(frozen=True)
class Model:
    """One version of a model, as it was registered when it was looked at.

    Attributes:
        record: its entry in the registry: name, version, aliases, metrics, gate, recipe, digest.
        profile: whose registry.
    """

    record: ModelVersion
    profile: str | None = field(default=None, repr=False)

    @property
    def ref(self) -> str:
        """``fraud:3``, by which other functions take it."""
        return f"{self.record.name}:{self.record.version}"

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.record.aliases

    @property
    def metrics(self) -> dict[str, float]:
        return self.record.metrics

    @cached_property
    def bundle(self) -> Bundle:
        """Its files, on this machine."""
        from contracts.registry import Registry

        return Registry(endpoints_of(self.profile)).fetch(self.ref)

    @property
    def card(self) -> Page:
        """Its card: what it is for, how good it is and for whom."""
        return Page(self.bundle.path / "card.html")

    @property
    def plots(self) -> Plots:
        """The plots of its evaluation."""
        return Plots(sorted((self.bundle.path / "plots").glob("*.png")))

    @property
    def gate(self) -> Listing[Mapping[str, Any]]:
        """The checks of the gate."""
        return gate_listing(self.bundle.document.gate.model_dump())

    @property
    def slices(self) -> dict[str, dict[str, float]]:
        """Metrics by group of the test rows."""
        return self.bundle.document.slices

    def cells(self) -> dict[str, Any]:
        """A row of a table of models."""
        from deploy.cli.models.promotion import main_metrics

        refused = "overridden" if self.record.override else "refused"
        return {
            "model": self.ref,
            "aliases": self.aliases,
            "gate": "passed" if self.record.gate_passed else refused,
            "recipe": self.record.recipe,
            "metrics": main_metrics(self.metrics),
            "created": self.record.created[:16].replace("T", " "),
        }

    def __repr__(self) -> str:
        return text_table([self.cells()])

    def _repr_html_(self) -> str:
        return html_table([self.cells()]) + html_table([{"metric": k, "value": v} for k, v in self.metrics.items()])


@dataclass(frozen=True)
class Comparison:
    """What differs between two versions, second minus first.

    Attributes:
        document: all of it: versions, metrics, slices, gates, lineage; what ``fairlead compare --json`` prints.
        reservations: why differences may come from the data and not from the models.
    """

    document: Mapping[str, Any] = field(repr=False)
    reservations: tuple[str, ...] = ()

    @property
    def refs(self) -> tuple[str, str]:
        first, second = (f"{one['name']}:{one['version']}" for one in self.document["versions"])
        return first, second

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """By metric: first, second and their difference."""
        return dict(self.document["metrics"])

    @property
    def slices(self) -> dict[str, dict[str, float | None]]:
        """The same by group and metric."""
        return dict(self.document["slices"])

    def rows(self) -> list[dict[str, Any]]:
        """A row for each metric."""
        first, second = self.refs
        return [
            {"metric": name, first: one["first"], second: one["second"], "difference": one["difference"]}
            for name, one in self.metrics.items()
        ]

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame of pandas."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        return "\n".join([text_table(self.rows()), *self.reservations])

    def _repr_html_(self) -> str:
        # Metrics have units of their own: a bar is the difference as a share of the larger value.
        rows = [{**row, "change": _change(*list(row.values())[1:])} for row in self.rows()]
        said = "".join(f"<p>{escape(line)}</p>" for line in self.reservations)
        return heading(" and ".join(self.refs)) + html_table(rows) + said


def _change(first: float | None, second: float | None, difference: float | None) -> Html:
    return bar(difference, max(abs(first or 0.0), abs(second or 0.0)))


@told
def models(name: str | None = None, *, profile: str | None = None) -> Listing[Model]:
    """Versions of one model or of all, newest first.

    Raises:
        PlatformError: ``code="unknown_model"``.
    """
    from deploy.cli.models.promotion import registered

    found, empty = registered(endpoints_of(profile), name)
    return Listing((Model(version, profile) for version in found), Model.cells, empty)


@told
def model(ref: str, *, profile: str | None = None) -> Model:
    """One version: name (its champion), name@alias or name:version.

    Raises:
        PlatformError: ``code="unknown_model"``.
    """
    from contracts.registry import Registry

    return Model(Registry(endpoints_of(profile)).resolve(ref), profile)


@told
def compare(first: str, second: str, *, profile: str | None = None) -> Comparison:
    """Put two versions side by side; metrics are each one's own, on the test rows it was evaluated on."""
    from deploy.cli.models.promotion import compared, reservations

    document = compared(endpoints_of(profile), first, second)[2]
    return Comparison(document, tuple(reservations(document)))


@told
def promote(ref: str, *, override: str = "", profile: str | None = None) -> Model:
    """Make a version the champion; it is noted in the audit log.

    Args:
        override: why it may be, where the gate refused it.

    Raises:
        PlatformError: ``code="gate"``: the gate refused it, and `override` is empty.
    """
    from deploy.cli.models.promotion import promoted

    return Model(promoted(endpoints_of(profile), ref, override)[1], profile)


@told
def rollback(name: str, *, profile: str | None = None) -> Model:
    """Make the previous champion the champion again; it is noted in the audit log."""
    from deploy.cli.models.promotion import rolled_back

    return Model(rolled_back(endpoints_of(profile), name)[1], profile)
