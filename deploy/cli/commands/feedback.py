"""Commands about what became of predictions: labels, and the log's own."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_Model = Annotated[str, typer.Argument(help="The model's name.")]
_predictions = typer.Typer(no_args_is_help=True, help="The log of predictions: compact, list, annotate, judge, forget.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("labels", rich_help_panel="Govern")(labels)
    app.add_typer(_predictions, name="predictions", rich_help_panel="Govern")


@guarded
def labels(
    model: Annotated[str, typer.Argument(help="A model: name (its champion), name@alias or name:version.")],
    source: Annotated[
        str, typer.Option("--source", "-s", help="CSV, TSV, Parquet or mongodb://..., with id, label, maybe time.")
    ],
    id_column: Annotated[str, typer.Option(help="The column of prediction ids.")] = "id",
    label_column: Annotated[str, typer.Option(help="The column of what turned out to be true.")] = "label",
    time_column: Annotated[
        str, typer.Option(help="The column of when it was known, RFC 3339 with a zone; default: time if it is there.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Tell what turned out to be true of logged predictions: a file of labels, days later, joined by their ids.

    The same file twice changes nothing. A label with a later time corrects an earlier one and both are kept; one of the
    same time that says something else is reported and not kept. Rows that are no labels of the model, have a time
    without a zone or in the future are refused by their number, the others are kept; then the exit code is 1.

    [bold]Examples[/]
      fairlead labels fraud --source chargebacks.csv
      fairlead labels fraud --source reviewed.parquet --id-column prediction --label-column verdict
      fairlead labels fraud --source mongodb://db:27017/shop/reviews --id-column prediction --label-column verdict
    """
    from deploy.cli.feedback.label_source import Columns
    from deploy.cli.feedback.labels import import_labels

    columns = Columns(id=id_column, label=label_column, time=time_column)
    import_labels(profile, model, source, columns, as_json)


@_predictions.command()
@guarded
def compact(
    model: _Model,
    keep_days: Annotated[
        int | None, typer.Option("--keep-days", min=1, metavar="N", help="Drop days that are older; default: none.")
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Turn the lines of finished days into Parquet, one folder per day; today's are left to their writers.

    It may be ended at any time: nothing is lost or counted twice, and the next call goes on. One at a time per model.

    [bold]Examples[/]
      fairlead predictions compact fraud
      fairlead predictions compact fraud --keep-days 90
    """
    from deploy.cli.feedback.log_actions import compact_log

    compact_log(profile, model, keep_days, as_json)


@_predictions.command("list")
@guarded
def list_(
    model: _Model,
    count: Annotated[
        bool, typer.Option("--count", help="Count the records of lines in S3 too: reads them all.")
    ] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Show the days of a model's log: rows, versions, labels and bytes.

    [bold]Examples[/]
      fairlead predictions list fraud
      fairlead predictions list fraud --json
    """
    from deploy.cli.feedback.log_actions import list_days

    list_days(profile, model, count, as_json)


@_predictions.command()
@guarded
def annotate(
    model: _Model,
    source: Annotated[
        str,
        typer.Option("--source", "-s", help="JSON lines of id, annotation, maybe time; default: what endpoints got."),
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Keep what people say of predictions in no form of a label: any JSON, by the prediction's id.

    Annotations are documents of the document store, which the profile names: documents: mongodb://HOST/DATABASE. The
    same line twice is kept once. Lines that are none are refused by their number, the others are kept; then the exit
    code is 1. Without --source, what was posted to /feedback of the model's endpoints is moved there from the log.

    [bold]Examples[/]
      fairlead predictions annotate fraud
      fairlead predictions annotate fraud --source notes.jsonl
      fairlead labels fraud --source mongodb://db/fairlead/fraud.annotations --id-column prediction \
        --label-column annotation.verdict
    """
    from deploy.cli.feedback.annotations import annotate

    annotate(profile, model, source, as_json)


@_predictions.command("annotations")
@guarded
def annotations_(
    model: _Model,
    prediction: Annotated[str, typer.Argument(help="The id of a prediction.")],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Show what people said of a prediction, in the document store or in the log yet.

    [bold]Examples[/]
      fairlead predictions annotations fraud 0123456789abcdef0123456789abcdef
    """
    from deploy.cli.feedback.annotations import show

    show(profile, model, prediction, as_json)


@_predictions.command()
@guarded
def judge(
    model: Annotated[str, typer.Argument(help="A recommender: name (its champion), name@alias or name:version.")],
    lists: Annotated[
        str, typer.Option(help="Table of impressions; default: lists of the log, and the feedback to them.")
    ] = "",
    write: Annotated[str, typer.Option(metavar="FILE", help="Write the impressions here, as Parquet.")] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Say what a model's lists would have earned, from lists of others that were partly left to chance.

    Off-policy evaluation by inverse propensities, by normalised ones, and doubly robust, each with its interval. The
    lists must be younger than the model, which would know the clicks otherwise, and name who asked: the log keeps names
    with predictions.text=truncate. What is written with --write is what recipes with a ranker learn from.

    [bold]Examples[/]
      fairlead predictions judge recommend@challenger
      fairlead predictions judge recommend:7 --lists shown.parquet
      fairlead predictions judge recommend --write shown.parquet
    """
    from deploy.cli.feedback.judging import judge_lists

    judge_lists(profile, model, lists, write, as_json)


@_predictions.command()
@guarded
def forget(
    model: _Model,
    entity: Annotated[
        list[str], typer.Option("--entity", metavar="NAME=KEY", help="A key of the entity; repeat it for all its keys.")
    ],
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Remove all records of one entity, and their labels, from every file of a model's log.

    Keys are logged as hashes: they are found by the salt that the services have. How many records were removed, and
    when, stays noted; whose they were does not. Records of requests without entity keys name nobody and stay.

    [bold]Examples[/]
      fairlead predictions forget fraud --entity card_id=4711
      FAIRLEAD_SERVICE_PREDICTIONS__SALT=... fairlead predictions forget fraud --entity card_id=4711 --profile cluster
    """
    from deploy.cli.feedback.log_actions import forget_entity

    forget_entity(profile, model, entity, as_json)
