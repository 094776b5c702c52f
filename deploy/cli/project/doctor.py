"""``fairlead doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_cluster, load_endpoints, load_profile
from deploy.cli.project.checks import (
    Finding,
    check_cluster,
    check_machine,
    check_packages,
    check_pipelines,
    check_places,
)
from deploy.cli.terminal.output import EXIT_ERROR, emit, table

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def run_doctor(profile: str, as_json: bool, cluster: bool = False, probe: str = "") -> None:
    """Run every check of this machine, or of a cluster to install on, print them, and exit with 1 when one failed.

    With a profile that has a cluster this machine's checks go on to Kubeflow Pipelines there.
    """
    findings = list(check_cluster(load_cluster(profile), probe)) if cluster else _here(profile)
    failed = [finding for finding in findings if finding.level == "fail"]
    warned = [finding for finding in findings if finding.level == "warn"]
    document = {"ok": not failed, "profile": profile, "checks": [finding.as_dict() for finding in findings]}

    def show(out: Console) -> None:
        from rich.text import Text

        rows = table("check", "", "found", "fix")
        for finding in findings:
            level = Text(finding.level, _COLOURS[finding.level])
            rows.add_row(finding.check, level, Text(finding.found), Text(finding.fix))
        out.print(rows)
        out.print(_verdict(failed, warned, cluster))

    emit(document, as_json, show)
    if failed:
        raise typer.Exit(EXIT_ERROR)


def _here(profile: str) -> list[Finding]:
    where = load_profile(profile)
    found: list[Finding] = []
    try:
        endpoints = load_endpoints(profile)
        found = [*check_machine(endpoints), *check_packages(), *check_places(endpoints, profile)]
    except PlatformError as err:
        if where.cluster is None:
            raise
        found = [Finding(check="addresses", level="fail", found=err.headline, fix=err.fix), *check_packages()]
    return [*found, *(check_pipelines(where) if where.cluster is not None else ())]


def _verdict(failed: list[Finding], warned: list[Finding], cluster: bool) -> str:
    if failed:
        return f"[bold red]{len(failed)} to mend[/]: {', '.join(finding.check for finding in failed)}"
    if warned:
        return f"[green]Ready[/], {len(warned)} to look at: {', '.join(finding.check for finding in warned)}"
    next_ = "helm install fairlead helm/platform -n NAMESPACE --create-namespace" if cluster else "fairlead demo"
    return f"[green]Ready.[/] Next: {next_}"
