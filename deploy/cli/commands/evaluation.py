"""Commands about what models say: evaluate, prompts."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.cli.terminal.options import DEFAULT_PROFILE, Json, Profile
from deploy.cli.terminal.output import guarded

_MODEL = "A chat model: name, name@alias, name:version, a bundle's folder, or a service's address."
_AtOnce = Annotated[int, typer.Option(min=1, max=256, help="Requests that a model is asked together.")]
_Again = Annotated[
    bool, typer.Option("--again", help="Ask everything again; otherwise answers that are kept are taken.")
]
_Ref = Annotated[str, typer.Argument(help="A prompt: name (its champion) or name:version.")]
_prompts = typer.Typer(invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("evaluate", rich_help_panel="Govern")(evaluate)
    app.add_typer(_prompts, name="prompts", rich_help_panel="Govern")


@guarded
def evaluate(
    models: Annotated[list[str], typer.Argument(help=f"{_MODEL} The first is what others are compared with.")],
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="A suite: chat, or a YAML file, see docs/language.md.")
    ] = "chat",
    judge: Annotated[
        str, typer.Option(metavar="URL", help="A service that judges answers, with its key in FAIRLEAD_JUDGE_KEY.")
    ] = "",
    at_once: _AtOnce = 4,
    again: _Again = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Record each model in MLflow.")] = True,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Ask models the items of a suite, measure their answers, and compare the models in pairs.

    A model of the registry or of a folder is served meanwhile, by its own settings, without a log. A service is asked
    with OpenAI's protocol; http://HOST:PORT#NAME names one of its models, and FAIRLEAD_API_KEY is its key. Every answer
    is kept at once below the profile's folder, so that a run that was stopped goes on, and nothing is asked twice.

    The score is the mean of the tasks' first metrics, with a 95 % interval; two models are compared on the same items,
    and only an interval without 0 shows that one is better. A judge sees two answers in both orders, one model's
    against the references, and is measured against the labelled pairs of the suite.

    [bold]Examples[/]
      fairlead evaluate chat
      fairlead evaluate chat:1 chat:2 --suite support.yaml --judge https://llm.example/v1#large
      fairlead evaluate http://127.0.0.1:3005 --json
    """
    from deploy.cli.evaluation.evaluate import evaluate_models

    evaluate_models(profile, models, suite, judge, at_once, again, track, as_json)


@_prompts.callback()
@guarded
def prompts(
    context: typer.Context,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Only versions of this prompt.")] = None,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """List prompts: versions, champions, tests. A prompt is a document with a version of its content.

    [bold]Examples[/]
      fairlead prompts
      fairlead prompts --name summary --json
      fairlead prompts test summary.yaml
    """
    if context.invoked_subcommand is None:
        from deploy.cli.evaluation.prompts import list_prompts

        list_prompts(profile, name, as_json)


@_prompts.command("show")
@guarded
def show(prompt: _Ref, profile: Profile = DEFAULT_PROFILE, as_json: Json = False) -> None:
    """Show a prompt; with --json the whole document.

    [bold]Examples[/]
      fairlead prompts show summary
      fairlead prompts show summary:1f0c2a --json
    """
    from deploy.cli.evaluation.prompts import show_prompt

    show_prompt(profile, prompt, as_json)


@_prompts.command("test")
@guarded
def examined(
    prompt: Annotated[str, typer.Argument(help="A YAML file, which is kept; or name, or name:version.")],
    model: Annotated[str, typer.Option(help=f"{_MODEL} Default: the document's.")] = "",
    at_once: _AtOnce = 4,
    again: _Again = False,
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Ask a prompt's examples with its model, and keep what that shows beside the prompt.

    It passes with at least its minimum, unless it is shown to be worse than the champion on the same examples.

    [bold]Examples[/]
      fairlead prompts test summary.yaml
      fairlead prompts test summary:1f0c2a --model http://127.0.0.1:3005
    """
    from deploy.cli.evaluation.prompts import examine_prompt

    examine_prompt(profile, prompt, model, at_once, again, as_json)


@_prompts.command("promote")
@guarded
def promote(
    prompt: Annotated[str, typer.Argument(help="A version: name:version.")],
    override: Annotated[
        str, typer.Option("--override", metavar="REASON", help="Promote without a test that passed; is recorded.")
    ] = "",
    profile: Profile = DEFAULT_PROFILE,
    as_json: Json = False,
) -> None:
    """Make a version of a prompt the champion; an earlier one is promoted again to go back.

    One whose test did not pass needs a reason, otherwise exit code 3.

    [bold]Examples[/]
      fairlead prompts promote summary:1f0c2a
      fairlead prompts promote summary:1f0c2a --override "checked by hand"
    """
    from deploy.cli.evaluation.prompts import promote_prompt

    promote_prompt(profile, prompt, override, as_json)
