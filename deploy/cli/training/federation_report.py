"""What the sites of a federation did, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy.cli.terminal.output import number, table

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20  # sites


def show_federation(out: Console, federation: Mapping[str, Any]) -> None:
    """A line for each site: rows, rounds, the shared model on its own rows, and its decision or why it took no part."""
    sites = federation["sites"]
    kind = "secure sum, " if federation["secure"] else ""
    out.print(f"\nSites    {len(sites)}, {kind}rule {federation['rule']}, {federation['rounds']} rounds", markup=False)
    rows = table("site", "rows", "rounds", "late", "roc_auc", "", right=("rows", "rounds", "late", "roc_auc"))
    for one in sites[:_SHOWN]:
        last = one["measured"][-1].get("roc_auc") if one["measured"] else None
        count = "-" if one["rows"] is None else f"{one['rows']:,.0f}"
        rows.add_row(one["name"], count, str(one["rounds"]), str(one["late"]), number(last), _said(one))
    out.print(rows)
    if len(sites) > _SHOWN:
        out.print(f"         and {len(sites) - _SHOWN} more, see the card")


def _said(site: Mapping[str, Any]) -> str:
    if site["refused"]:
        return str(site["refused"])
    decision = site["decision"]
    if decision is None:
        return "it is gone"
    return "accepts the model" if decision["accepted"] else "refuses the model: " + "; ".join(decision["reasons"])
