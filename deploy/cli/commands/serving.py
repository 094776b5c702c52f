"""Commands about answers: serve, predict, chat, score."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    for command in (serve, predict, chat, score):
        app.command(command.__name__, rich_help_panel="Serve")(command)


@guarded
def serve(
    model: Annotated[str, typer.Argument(help="A model: name, name@alias or name:version.")],
    port: Annotated[int | None, typer.Option(help="Default: from deploy/env/<profile>/models/<name>.yaml.")] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on: localhost in both families, 0.0.0.0 or :: is every one."),
    ] = "127.0.0.1",
    log: Annotated[
        bool, typer.Option("--log/--no-log", help="Keep predictions below the profile's folder, redacted.")
    ] = True,
    rollouts: Annotated[
        bool, typer.Option("--rollouts", help="Let later versions take over by rollouts, behind a router (Envoy).")
    ] = False,
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Also answer encrypted rows: logistic regressions and scorecards.")
    ] = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Serve a model over HTTP until Ctrl-C.

    The reference is resolved once, so the endpoint keeps its version when the champion changes. It takes traffic after
    it has verified the bundle and replayed its golden examples. With --json, one document is printed when it is ready.
    Predictions are kept so that labels can be joined to them later (POST /feedback, or `labels`); of keys and
    unknown texts only hashes or lengths are. `config.predictions` of the model's values file says otherwise.

    With --rollouts another version is brought by: fairlead deploy fraud:4 --env local --strategy canary. It gets more
    and more traffic while its metrics are no worse, and none when they are; see fairlead rollouts.

    [bold]Examples[/]
      fairlead serve fraud
      fairlead serve fraud --rollouts
      fairlead serve credit --encrypted
      fairlead serve fraud:3 --port 3010
      fairlead serve fraud --host 0.0.0.0
    """
    if rollouts and not encrypted:
        from deploy.cli.serving.rollout_serving import serve_with_rollouts

        serve_with_rollouts(profile, model, port, host.strip("[]"), as_json, log)
        return
    from deploy.cli.serving.serve import ENCRYPTED, check_alone, serve_model

    check_alone(rollouts, encrypted)
    serve_model(profile, model, port, host.strip("[]"), as_json, log, ENCRYPTED if encrypted else {})


@guarded
def predict(
    model: Annotated[str, typer.Argument(help="A model: name, name@alias or name:version.")],
    given: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE|-|JSON", help="One object, a list, or one object per line.")
    ] = "",
    images: Annotated[
        list[str] | None, typer.Option("--image", metavar="FILE", help="An image file; may be repeated.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask this endpoint, for example http://127.0.0.1:3001.")] = None,
    env: Annotated[
        str | None, typer.Option("--env", help="Ask the model's release in this environment's cluster.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add the reasons of each prediction.")] = False,
    encrypted: Annotated[
        bool,
        typer.Option("--encrypted", help="Send encrypted rows: the service reads neither them nor its answers."),
    ] = False,
    draw: Annotated[
        str,
        typer.Option("--draw", metavar="FILE", help="Write images of answers, or those with boxes; then out-2.png."),
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Predict with a registered model here, or with a running endpoint by --url or --env.

    An endpoint that wants an API key gets the one in FAIRLEAD_API_KEY; with --env, else the release's own.

    [bold]Examples[/]
      fairlead predict news --input '{"title": "Rates rise", "content": "The central bank ..."}'
      fairlead predict fraud --input payments.jsonl --explain
      fairlead predict fraud --input - --url http://127.0.0.1:3001 < payments.jsonl
      fairlead predict fraud --input payments.jsonl --env cluster
      fairlead predict images --image sign.jpg --explain
      fairlead predict credit --input applicant.json --encrypted --url http://127.0.0.1:3001
      fairlead predict objects --image tray.jpg --draw out.png
      fairlead predict drawings --input '{"prompt": "a fish", "seed": 7}' --draw out.png
    """
    from deploy.cli.serving.prediction import given_rows, predict_rows

    rows = given_rows(given, images or [])
    if encrypted:
        from deploy.cli.serving.encrypted import predict_encrypted

        predict_encrypted(model, rows, url, env, explain, as_json)
        return
    predict_rows(profile, model, rows, url, env, explain, as_json, draw, images or [])


@guarded
def chat(
    model: Annotated[str, typer.Argument(help="A chat model: name, name@alias or name:version; or an address.")],
    system: Annotated[str, typer.Option(help="System message; default: the model's own.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of an answer, at most.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Talk to a model in the terminal; what is piped in is one prompt, whose answer is one document with --json.

    A model of the registry is served while you talk. Answers come as they are written, and Ctrl-C stops one. /reset
    forgets the conversation, /system TEXT changes the system message, /exit ends. A service that wants an API key gets
    the one in FAIRLEAD_API_KEY. Nothing that is said is kept, but what the service logs: lengths, no texts.

    [bold]Examples[/]
      fairlead chat chat
      fairlead chat http://127.0.0.1:3005 --system "Answer in one word."
      echo "What is the capital of France?" | fairlead chat chat --temperature 0
    """
    from deploy.cli.serving.chat import chat_with

    chat_with(profile, model, system, max_tokens, temperature, seed, as_json)


@guarded
def score(
    model: Annotated[str, typer.Argument(help="A model: name, name@alias or name:version, or a bundle's folder.")],
    source: Annotated[str, typer.Option("--source", "-s", help="A file, a folder, s3://... or mongodb://...")],
    out: Annotated[str, typer.Option("--out", "-o", help="A new folder for the scored rows, as Parquet.")] = "scores",
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Also to mongodb://host/database/collection?key=COLUMN.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="How the file is read; may be repeated.")
    ] = None,
    draw: Annotated[
        str,
        typer.Option("--draw", metavar="FILE", help="Of clips: write them with boxes; of several out.mp4, out-2.mp4."),
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Score a whole file: every row gets its answer, or the row that has none is named.

    The columns are those of a request: all inputs, or the entity keys, request fields and time, for which the features
    are read as the endpoint reads them. A file is read as the model's training data were, unless --set data.* says
    otherwise. Each row gets its flags, as an endpoint gives them.

    A model with thresholds by group (mitigation.method=thresholds) takes them where --set groups.table names a table
    with the group of each row, and --set groups.key its key, a column of the rows; nothing of it is kept.

    A clip, or a folder of clips, is scored frame by frame by a model that finds objects: each object keeps one number
    while it is seen, and those that enter and leave zones or cross lines are counted. --set video.* says which frames,
    zones and lines.

    With --to each row also becomes a document of a MongoDB collection, known by the columns that `key` names, else by
    _id; scoring again replaces it.

    [bold]Examples[/]
      fairlead score fraud --source payments.csv --out scored
      fairlead score news:2 --source articles/ --json
      fairlead score fraud --source payments.csv --to 'mongodb://db:27017/shop/scores?key=payment_id'
      fairlead score fraud --source export.csv --set 'data.delimiter=;' --set data.columns.amount=betrag
      fairlead score objects --source clip.mp4 --draw out.mp4 --set video.rate=5
      fairlead score objects --source clips/ --set 'video.zones={belt: [[0, 60], [320, 60], [320, 180], [0, 180]]}'
    """
    from deploy.cli.runs.batch_scoring import score_rows

    score_rows(profile, model, source, out, to, overrides or [], as_json, draw)
