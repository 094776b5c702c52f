"""Commands about features: list, show, materialise, check, backfill, stream."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_TASK = "A task: see fairlead tasks."
_features = typer.Typer(no_args_is_help=True, help="Look at features, bring them online, check them.")


def register(app: typer.Typer) -> None:
    """Add ``features`` to the command line."""
    app.add_typer(_features, name="features", rich_help_panel="Govern")


@_features.command("list")
@guarded
def list_features(profile: Profile = DEFAULT_PROFILE, as_json: Json = False) -> None:
    """List the feature views of every task: entities, number of features, time to live, until when they are known.

    [bold]Examples[/]
      fairlead features list
      fairlead features list --json
    """
    from deploy.cli.features.feature_views import show_views

    show_views(profile, as_json)


@_features.command()
@guarded
def show(
    view: Annotated[str, typer.Argument(help="A feature view: see fairlead features list.")],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Show a view: its features with some values as they are served, how fresh they are, and which models use them.

    [bold]Examples[/]
      fairlead features show customer_windows
    """
    from deploy.cli.features.feature_views import show_view

    show_view(profile, view, as_json)


@_features.command()
@guarded
def materialise(
    task: Annotated[str, typer.Argument(help=_TASK)],
    until: Annotated[str, typer.Option(help="A moment (ISO, UTC); default: all that is known.")] = "",
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be given again.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Bring the newest values of a task's features online. Newer values that are online already stay.

    [bold]Examples[/]
      fairlead features materialise fraud
      fairlead features materialise fraud --view customer_windows --until 2026-01-31
    """
    from deploy.cli.features.feature_views import bring_online

    bring_online(profile, task, "", until, view, as_json)


@_features.command()
@guarded
def backfill(
    task: Annotated[str, typer.Argument(help=_TASK)],
    since: Annotated[str, typer.Option(help="A moment (ISO, UTC).")],
    until: Annotated[str, typer.Option(help="A moment (ISO, UTC); default: all that is known.")] = "",
    view: Annotated[list[str] | None, typer.Option(help="Only this view; may be given again.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Bring the values of an interval online, where nothing newer is: after late data, or a store that lost some.

    [bold]Examples[/]
      fairlead features backfill fraud --since 2026-01-01 --until 2026-01-31
    """
    from deploy.cli.features.feature_views import bring_online

    bring_online(profile, task, since, until, view, as_json)


@_features.command()
@guarded
def check(
    task: Annotated[str, typer.Argument(help=_TASK)],
    sample: Annotated[int, typer.Option(min=1, max=100_000, help="Entities per view.")] = 1000,
    metrics: Annotated[
        str, typer.Option(metavar="FILE", help="Also write freshness and missing rates for Prometheus' node exporter.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Compare what is served with the history: same values, how fresh, how many missing, how far they drifted.

    Exit code 1 when a value that is served is not what the history says.

    [bold]Examples[/]
      fairlead features check fraud
      fairlead features check fraud --sample 10000 --metrics /var/lib/node_exporter/fairlead.prom
    """
    from deploy.cli.features.feature_views import check_features

    check_features(profile, task, sample, metrics, as_json)


@_features.command()
@guarded
def stream(
    config: Annotated[
        str, typer.Argument(metavar="FILE", help="Brokers, topics and push sources; see docs/features.md.")
    ],
    as_json: Json = False,
) -> None:
    """Push the rows of Kafka topics into the feature store, until Ctrl-C.

    [bold]Examples[/]
      fairlead features stream stream.yaml
    """
    from deploy.cli.features.following import follow_topics

    follow_topics(config, as_json)
