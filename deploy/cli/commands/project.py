"""Commands about the project and this machine: doctor, images, new-task, ui."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    panel = "Project"
    app.command("doctor", rich_help_panel=panel)(doctor)
    app.command("images", rich_help_panel=panel)(images)
    app.command("ui", rich_help_panel=panel)(ui)
    app.command("new-task", rich_help_panel=panel)(new_task)


@guarded
def doctor(
    profile: Annotated[
        str | None, typer.Option("--profile", "-p", help="Default: local, with --cluster: cluster.")
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Check a cluster instead, before an install.")] = False,
    probe: Annotated[
        str, typer.Option(metavar="IMAGE", help="With --cluster: try network policies by two pods of a Python image.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check this machine and say how to get what is missing. Exit code 1 when something needed is missing.

    With a cluster's profile also what runs need there: Kubeflow's parts, images, rights, room on the nodes.

    [bold]Examples[/]
      fairlead doctor
      fairlead doctor --profile cluster
      fairlead doctor --cluster
      fairlead doctor --cluster --profile staging.yaml --probe ghcr.io/fairlead/service:0.1.0
    """
    from deploy.cli.project.doctor import run_doctor

    chosen = profile or os.environ.get("FAIRLEAD_CLI_PROFILE") or ("cluster" if cluster else DEFAULT_PROFILE)
    run_doctor(chosen, as_json, cluster, probe)


@guarded
def images(
    values: Annotated[list[Path] | None, typer.Option("--values", "-f", help="Values of the platform's chart.")] = None,
    mirror: Annotated[str, typer.Option(metavar="REGISTRY", help="Also show the commands that copy them there.")] = "",
    digests: Annotated[bool, typer.Option("--digests", help="Ask the registries for their digests.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when the mirror lacks one.")] = False,
    profile: Annotated[str, typer.Option("--profile", "-p", help="Whose steps are meant.")] = "cluster",
    as_json: Json = False,
) -> None:
    """List every image of the platform, its steps and its models, and how to copy them to a registry of one's own.

    Needs helm; nothing is asked but with --digests and --check. The mirror is then the chart's global.imageRegistry and
    the profile's cluster.image_registry. Exit code 1 when it lacks an image.

    [bold]Examples[/]
      fairlead images
      fairlead images -f values-production.yaml --mirror registry.example.com --digests
      fairlead images --mirror registry.example.com --check
    """
    from deploy.cli.project.images import show_images

    show_images(profile, values or [], mirror, digests, check, as_json)


@guarded
def ui(
    port: Annotated[int, typer.Option(help="Port of the page.")] = 5000,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Start the MLflow page of a profile: runs, curves, plots and registered models. Ctrl-C ends it.

    [bold]Examples[/]
      fairlead ui
      fairlead ui --port 5050
    """
    from deploy.cli.project.mlflow_page import run_ui

    run_ui(profile, port, as_json)


@guarded
def new_task(
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and _; for example churn.")],
    problem: Annotated[
        str, typer.Option(help="classification, multilabel, regression; of texts also embedding, generation.")
    ] = "classification",
    modality: Annotated[str, typer.Option(help="tabular, text, image, chat or drawing.")] = "tabular",
    root: Annotated[Path | None, typer.Option(help="Folder of the project; default: where fairlead is.")] = None,
    as_json: Json = False,
) -> None:
    """Write a new task that runs at once; edits no existing file.

    [bold]Examples[/]
      fairlead new-task churn
      fairlead new-task prices --problem regression
      fairlead new-task tickets --problem multilabel --modality text
      make new-task NAME=churn
    """
    from deploy.cli.project.scaffold import create_task

    create_task(name, problem, modality, root, as_json)
