"""Commands about training by sites that keep their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_federation = typer.Typer(no_args_is_help=True, help="The parties of a federation: their certificates, and a site.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("federate", rich_help_panel="Train")(federate)
    app.add_typer(_federation, name="federation", rich_help_panel="Train")


@guarded
def federate(
    task: Annotated[str, typer.Argument(help="The task; see: fairlead tasks.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="One with a network or a logistic; default: the first.")
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=200, help="Simulated sites: processes of this machine.")] = 10,
    split_by: Annotated[str, typer.Option(help="How they share the rows: iid, dirichlet, or a column.")] = "iid",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="Rehearse a simulated site's fault: NAME=drop, late, nan, shape, schema, sign or flip."),
    ] = None,
    site: Annotated[list[str] | None, typer.Option(help="A partner's site, instead of simulated ones.")] = None,
    listen: Annotated[str, typer.Option(help="Where partners' sites connect to, HOST:PORT.")] = "0.0.0.0:8443",
    certificates: Annotated[str, typer.Option(help="Folder of what federation certificates makes.")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="How often the sites train and are added up.")] = None,
    rule: Annotated[str, typer.Option(help="mean, trimmed, or screened.")] = "",
    secure: Annotated[bool, typer.Option("--secure", help="Hide each site's update; only the sum is known.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one setting, key=value.")] = None,
    source: Annotated[str, typer.Option("--source", "-s", help="The coordinator's rows, or all of a simulation.")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every step again.")] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Train a task by sites that keep their rows: a run like any other, with gate, card and bundle.

    Without --site it is a simulation: every site is a process with its own part of the training rows, certificate and
    connection. Calibration, threshold and gate are of the coordinator's own validation and test rows. --rule screened
    stands one poisoner in five; --secure hides single updates, and so cannot judge them. privacy.epsilon adds noise at
    the sites. All settings: --set federation.KEY.

    A federation that was stopped goes on with: fairlead run --resume RUN

    [bold]Examples[/]
      fairlead federate credit --clients 10 --split-by purpose
      fairlead federate credit --recipe logistic --clients 4 --split-by dirichlet --set federation.proximal=0.1
      fairlead federate credit --clients 5 --rule screened --fault site-2=sign --fault site-4=drop
      fairlead federate credit --site bank-a --site bank-b --site bank-c --secure --certificates keys --source own.csv
    """
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.federation import Federation, federate_task

    asked = Federation(
        clients=clients,
        split=split_by,
        faults=fault or (),
        sites=site or (),
        listen=listen,
        certificates=certificates,
        rounds=rounds,
        rule=rule,
        secure=secure,
    )
    options = RunOptions(overrides=overrides or [], source=source, no_cache=no_cache, profile=profile)
    federate_task(task, recipe, asked, options, as_json)


@_federation.command()
@guarded
def certificates(
    folder: Annotated[Path, typer.Argument(help="Where they are made, or added to.")],
    site: Annotated[list[str], typer.Option(help="Name of a site; give all of them.")],
    host: Annotated[list[str], typer.Option(help="Name or address that sites reach the coordinator by.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long they are good for.")] = 360,
    as_json: Json = False,
) -> None:
    """Make the certificates of a federation: of an authority, of the coordinator and of each site.

    A site gets ca.pem and its own two files, over a way that is safe. ca.key stays with whom all partners trust: who
    has it can pose as any site, and so look behind a secure sum.

    [bold]Examples[/]
      fairlead federation certificates keys --site bank-a --site bank-b --site bank-c --host federation.example.org
      fairlead federation certificates keys --site bank-d --host federation.example.org --json
    """
    from deploy.cli.training.federation import make_keys

    make_keys(folder, site, host, days, as_json)


@_federation.command()
@guarded
def site(
    task: Annotated[str, typer.Argument(help="The task; see: fairlead tasks.")],
    name: Annotated[str, typer.Option(help="Of this site, as in its certificate.")],
    server: Annotated[str, typer.Option(help="The coordinator, HOST:PORT. The connection goes out from here.")],
    certificates: Annotated[Path, typer.Option(help="Folder with ca.pem, NAME.crt and NAME.key.")],
    source: Annotated[str, typer.Option("--source", "-s", help="This site's rows.")] = "",
    folder: Annotated[Path, typer.Option(help="Where its data set, the model and its decision are kept.")] = Path(
        "federated-site"
    ),
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="That of the coordinator.")] = None,
    rules: Annotated[list[str] | None, typer.Option("--rule", help="What this site asks for, key=value.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Change one setting, key=value.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Be a partner's site: make the data set of its own rows, take part, and judge the model that comes of it.

    Rows never leave. The site checks and splits its data as a run does. Its own rules decide what it takes part in
    (min_rows, least_sites, secure, max_epsilon) and which model it accepts on its validation rows (accept.METRIC).
    Exit code 3 means that it refused the model.

    [bold]Examples[/]
      fairlead federation site credit --name bank-a --server host:8443 --certificates keys --source own.csv
      fairlead federation site credit --name bank-b --server host:8443 --certificates keys --rule secure=true
      fairlead federation site credit --name bank-c --server host:8443 --certificates keys --rule min_rows=9 --json
    """
    from deploy.cli.runs.workflow import RunOptions
    from deploy.cli.training.federation import Place, be_site

    options = RunOptions(overrides=overrides or [], source=source, profile=profile)
    place = Place(name=name, server=server, certificates=certificates, folder=folder, rules=rules or ())
    be_site(task, recipe, place, options, as_json)
