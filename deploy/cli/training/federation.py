"""``fairlead federate`` and ``fairlead federation``: a run by sites, their certificates, and a site."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.terminal.output import EXIT_REFUSED, console, emit, number
from deploy.cli.training.plan import measured_apart
from deploy.cli.training.start_run import run_task
from pipelines.settings import assigned

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.federation.site import SiteRules

_KINDS = ("network", "logistic", "lstm", "")  # of models that can be federated; only those of tables have others


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What the command is told of the federation itself; what is left out is the recipe's (`FederationConfig`)."""

    clients: int = 10
    split: str = "iid"
    faults: Sequence[str] = ()
    sites: Sequence[str] = ()
    listen: str = ""
    certificates: str = ""
    rounds: int | None = None
    rule: str = ""
    secure: bool = False


@dataclass(frozen=True, kw_only=True)
class Place:
    """A partner's site: its name, where it connects to, its keys, what it keeps, and its rules as key=value."""

    name: str
    server: str
    certificates: Path
    folder: Path
    rules: Sequence[str] = ()


def federate_task(task: str, recipe: str | None, asked: Federation, options: RunOptions, as_json: bool) -> None:
    """Federate, and exit with 3 when the gate refused the model.

    Raises:
        PlatformError: what cannot be federated, or not there.
    """
    if asked.sites and load_profile(options.profile).cluster is not None:
        raise PlatformError(
            "partners' sites cannot reach a step of a workflow",
            detail=f"profile {options.profile} is of a cluster",
            fix="lead them from there by the platform's values, federation.enabled=true, or from this machine",
            code="bad_option",
        )
    told = [assigned(key, value) for key, value in federation_settings(asked).items()]
    run_task(task, federable(task, recipe), None, replace(options, overrides=[*told, *options.overrides]), as_json)


def federation_settings(asked: Federation) -> dict[str, Any]:
    """What a run is told to be federated.

    Raises:
        PlatformError: ``code="missing_package"``; ``code="bad_option"``, a fault that is not NAME=WHAT.
    """
    _need_engine()
    told: dict[str, Any] = {}
    if asked.sites:
        told |= {"sites": list(asked.sites), "listen": asked.listen}
        told["certificates"] = str(Path(asked.certificates).resolve()) if asked.certificates else ""
    else:
        told |= {"clients": asked.clients, "split": asked.split, "faults": dict(map(_fault, asked.faults))}
    told |= {"rounds": asked.rounds} if asked.rounds else {}
    told |= {"rule": asked.rule} if asked.rule else {}
    told |= {"secure": True} if asked.secure else {}
    return {f"federation.{key}": value for key, value in told.items() if value != {}}


def federable(task: str, recipe: str | None) -> str:
    """The recipe that is asked for, or the first of the task that can be federated.

    Raises:
        PlatformError: ``code="bad_option"``: this one cannot, or none of the task's.
    """
    from pipelines.tasks import get_task

    found = get_task(task)
    able = [
        name
        for name in [found.default_recipe, *found.recipes]
        if getattr(getattr(found.recipes[name], "model", None), "kind", "") in _KINDS
        and hasattr(found.recipes[name], "federation")
    ]
    if not able or (recipe in found.recipes and recipe not in able):
        raise PlatformError(
            f"recipe {recipe} of task {task} cannot be federated" if able else f"task {task} cannot be federated",
            detail="of tables networks and logistic regressions can, of texts and images networks that tell classes",
            fix=f"--recipe {able[0]}" if able else "fairlead federate credit",
            code="bad_option",
        )
    return recipe or able[0]


def make_keys(folder: Path, sites: Sequence[str], hosts: Sequence[str], days: int, as_json: bool) -> None:
    """Make what is not there, and say what goes where."""
    from pipelines.federation.certificates import make_certificates

    make_certificates(folder, sites, hosts, days)
    for_site = {name: [str(folder / file) for file in ("ca.pem", f"{name}.crt", f"{name}.key")] for name in sites}
    leads = [str(folder / file) for file in ("ca.pem", "server.crt", "server.key")]
    document = {"coordinator": leads, "sites": for_site, "authority": str(folder / "ca.key")}

    def show(out: Console) -> None:
        for who, files in {"coordinator": leads, **for_site}.items():
            out.print(f"{who:<14} {' '.join(files)}", markup=False, soft_wrap=True)
        out.print(f"{'keep apart':<14} {folder / 'ca.key'}", markup=False, soft_wrap=True)

    emit(document, as_json, show)


def be_site(task: str, recipe: str | None, place: Place, options: RunOptions, as_json: bool) -> None:
    """Make the data set, take part, and exit with 3 when the site refused the model.

    Raises:
        PlatformError: what making the data raises; ``code="no_model"``, when the federation ended without one.
    """
    from pipelines.federation.site import DECISION, Site, attend_as
    from pipelines.io.files import read_json

    rules = site_rules(place.rules)
    folder = place.folder.resolve()
    site_data(task, federable(task, recipe), folder, options)
    (folder / DECISION).unlink(missing_ok=True)
    known = Site(place.name, folder, place.certificates.resolve(), rules)
    if not as_json:
        rows = {name: len(known.part(name).y) for name in ("train", "valid")}
        console().print(f"Site {place.name}: {rows['train']:,} rows, {rows['valid']:,} to judge by; to {place.server}")
    attend_as(known, place.server, place.certificates.resolve())
    if not (folder / DECISION).exists():
        raise PlatformError(
            "the federation has ended without a model",
            detail="see the coordinator's run",
            fix="start the site again when the coordinator does",
            code="no_model",
        )
    decision = read_json(folder / DECISION)
    emit({**decision, "model": str(folder / "model.onnx")}, as_json, lambda out: _show(out, decision, folder))
    if not decision["accepted"]:
        raise typer.Exit(EXIT_REFUSED)


def site_rules(told: Sequence[str]) -> SiteRules:
    """The rules of ``key=value``.

    Raises:
        PlatformError: ``code="bad_config"``: an unknown rule, or a wrong value.
    """
    from pipelines.federation.site import SiteRules
    from pipelines.settings import apply, parse_setting
    from pipelines.task import validated

    document: dict[str, Any] = {
        "min_rows": 50, "least_sites": 2, "secure": False, "max_epsilon": None, "accept": {"roc_auc": 0.5}
    }  # fmt: skip
    for one in told:
        apply(document, *parse_setting(one))
    return validated(SiteRules, document)


def site_data(task: str, recipe: str | None, folder: Path, options: RunOptions) -> None:
    """The data set of this site's rows in `folder`, by the steps of a run.

    Raises:
        PlatformError: what a step says of the rows.
    """
    from pipelines.io.files import write_json
    from pipelines.tasks import get_task, load_config

    run = plan_run(load_endpoints(options.profile), task, recipe, options)
    found = get_task(task)
    config = load_config(found, json.dumps(run.config))
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "making"
    scratch.mkdir(exist_ok=True)
    measured_apart("prepare", {"run": run.document(), "folder": "", "shares": [], "keep": str(folder)}, scratch)
    classes: Any = found.classes or getattr(config, "order", ())
    if not classes:
        raise PlatformError(
            f"task {task} takes its classes from the rows, and sites would number their own",
            fix='give the task its `classes`; coordinator and sites alike: --set \'order=["one","other"]\'',
            code="bad_task",
        )
    known = {"inputs": [one.model_dump() for one in found.inputs(config)], "classes": list(classes)}
    write_json(folder / "site.json", known)


def _show(out: Console, decision: Mapping[str, Any], folder: Path) -> None:
    verdict = "accepted" if decision["accepted"] else "refused: " + "; ".join(decision["reasons"])
    found = ", ".join(f"{name} {number(value)}" for name, value in decision["measured"].items())
    out.print(f"Model    {verdict}; on this site's rows: {found or 'not measured'}", markup=False, soft_wrap=True)
    out.print(f"Files    {folder / 'model.onnx'}", markup=False, soft_wrap=True)


def _fault(text: str) -> tuple[str, str]:
    name, _, what = text.partition("=")
    if not what:
        raise PlatformError(
            f"--fault {text!r} is not NAME=WHAT", fix="write it as --fault site-2=drop", code="bad_option"
        )
    return name, what


def _need_engine() -> None:
    if importlib.util.find_spec("nvflare") is None:
        raise PlatformError(
            "a federation needs NVFlare, which is not installed",
            fix="pip install 'fairlead[federation]'",
            code="missing_package",
        )
