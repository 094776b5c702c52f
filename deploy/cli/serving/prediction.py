"""``fairlead predict``: rows to predictions, here or by a running endpoint."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_deployment, load_endpoints
from deploy.cli.serving.http_requests import Answer, send
from deploy.cli.terminal.output import emit, number, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

API_KEY = "FAIRLEAD_API_KEY"
_BATCH = 500  # rows of one request
_SHOWN = 50  # rows of the table
_ITEMS = 4  # numbers that are shown of a vector
_LARGE = 1000.0  # from here on, one digit behind the point is enough
_FILES = frozenset({"image"})  # in base64: by --draw, or in --json only
_ELSEWHERE = frozenset({"id", "threshold", "reasons", "flags"})  # under notes, or in --json only

Ask = Callable[[dict[str, Any]], dict[str, Any]]


def predict_rows(
    profile: str,
    ref: str,
    rows: list[Any],
    url: str | None,
    env: str | None,
    explain: bool,
    as_json: bool,
    draw: str = "",
    images: Sequence[str] = (),
) -> None:
    """Predict the given rows and print the answers in their order; with `draw`, also write images."""
    from deploy.cli.serving.drawing import check_target, draw_answers

    if draw:
        check_target(draw)
    document = answered(profile, ref, rows, url, env, explain)
    if draw:
        document["drawn"] = draw_answers(draw, images, document["predictions"])

    def show(out: Console) -> None:
        predictions = document["predictions"]
        out.print(f"[bold]{document['model']}:{document['version']}[/]")
        out.print(shown(predictions[:_SHOWN]))
        if len(predictions) > _SHOWN:
            out.print(f"... and {len(predictions) - _SHOWN} more; --json prints all")
        if draw:
            out.print(f"drawn: {', '.join(document['drawn'])}", soft_wrap=True)

    emit(document, as_json, show)


def answered(
    profile: str,
    ref: str,
    rows: list[Any],
    url: str | None = None,
    env: str | None = None,
    explain: bool = False,
    key: str = "",
) -> dict[str, Any]:
    """The answers for the given rows in their order: model, version and predictions.

    key: API key of the endpoint; "" is that of the environment, then the release's own.

    Raises:
        PlatformError: nothing answers, or it refuses a row, and says which.
    """
    if url and env:
        raise PlatformError("--url and --env name two endpoints", fix="leave one of them out", code="bad_input")
    if not rows:
        raise PlatformError("no rows to predict", fix="give at least one", code="bad_input")
    key = key or os.environ.get(API_KEY, "")
    if env:
        from deploy.cli.releases.release_address import reach_release

        url, made = reach_release(env, ref)
        key = key or made
    answers = list(by_url(url, rows, explain, key) if url else by_bundle(profile, ref, rows, explain))
    return {**answers[0], "predictions": [row for answer in answers for row in answer["predictions"]]}


def given_rows(given: str, images: list[str]) -> list[Any]:
    """Rows of ``--input``, or one for each file of ``--image``.

    Raises:
        PlatformError: ``code="bad_input"``: both or neither are given, or a file cannot be read.
    """
    if bool(given) == bool(images):
        raise PlatformError(
            "--input and --image are both given" if given else "nothing to predict",
            fix="give either --input FILE or, for a model of images, --image FILE",
            code="bad_input",
        )
    return read_rows(given) if given else [{"image": _encoded(file)} for file in images]


def _encoded(file: str) -> str:
    try:
        return base64.b64encode(Path(file).expanduser().read_bytes()).decode()
    except OSError as err:
        raise PlatformError(
            f"cannot read --image {file!r}", detail=str(err), fix="give the path of an image file", code="bad_input"
        ) from err


def read_rows(given: str) -> list[Any]:
    """Rows from JSON text, a file of it, or ``-`` for stdin: one object, a list of them, or one object per line.

    Raises:
        PlatformError: ``code="bad_input"``, with the line that is not JSON.
    """
    if given == "-":
        text, where = sys.stdin.read(), "stdin"
    elif given.lstrip()[:1] in ("{", "["):
        text, where = given, "--input"
    else:
        text, where = _read_file(given), given
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = list(_lines(text, where))
    if isinstance(document, dict) and isinstance(document.get("instances"), list):
        document = document["instances"]  # the body of a request
    rows = document if isinstance(document, list) else [document]
    if not rows:
        raise PlatformError(f"no rows in {where}", fix="give at least one JSON object", code="bad_input")
    return rows


def _read_file(given: str) -> str:
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise PlatformError(
            f"cannot read --input {given!r}",
            detail=str(err),
            fix="give a JSON file, - for stdin, or JSON text that starts with { or [",
            code="bad_input",
        ) from err


def _lines(text: str, where: str) -> Iterator[Any]:
    for number_, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as err:
            raise PlatformError(
                f"{where} is not JSON",
                detail=f"line {number_}, column {err.colno}: {err.msg}",
                fix="write one object, a list, or one object per line",
                code="bad_input",
                line=number_,
            ) from err


def _bodies(rows: list[Any], explain: bool) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), _BATCH):
        yield {"instances": rows[start : start + _BATCH], **({"explain": True} if explain else {})}


def by_url(url: str, rows: list[Any], explain: bool, key: str = "") -> Iterator[dict[str, Any]]:
    """Answers of a running endpoint, one per batch; `key` is its API key."""
    if not url.startswith(("http://", "https://")):
        raise PlatformError(f"not an address: {url!r}", fix="give it with its scheme: --url http://127.0.0.1:3001")
    address = url.rstrip("/").removesuffix("/predict") + "/predict"
    for answer in send(address, list(_bodies(rows, explain)), connections=1, key=key):
        yield _checked(answer, address)


def _checked(answer: Answer, address: str) -> dict[str, Any]:
    if answer.status == 0:
        raise PlatformError(
            f"no answer from {address}",
            detail=str(answer.body["error"]),
            fix="start it: fairlead serve MODEL, or correct --url",
            code="no_endpoint",
        )
    if answer.status != 200 or not isinstance(answer.body, dict) or "predictions" not in answer.body:
        raise problem(answer.status, answer.body)
    return answer.body


def problem(status: int, body: Any) -> PlatformError:
    """A service's problem document as our error."""
    if not isinstance(body, dict) or "title" not in body:
        return PlatformError(f"the endpoint answered {status}", detail=str(body)[:300], fix="is it ours? see --url")
    if status == 401:
        return PlatformError(
            str(body["title"]),
            fix=f"export {API_KEY}=KEY; a release's own: kubectl get secret RELEASE-keys -o jsonpath='{{.data.key}}' "
            "| base64 -d",
            code="unauthorized",
        )
    fields = [f"{item['field']}: {item['message']}" for item in body.get("errors") or []]
    return PlatformError(
        str(body["title"]),
        detail="\n  ".join(filter(None, [str(body.get("detail") or ""), *fields])),
        fix=str(body.get("fix") or "correct what --input gives"),
        code=str(body.get("type", "")).rpartition(":")[2].replace("-", "_") or "refused",
    )


def by_bundle(profile: str, ref: str, rows: list[Any], explain: bool) -> Iterator[dict[str, Any]]:
    """Answers of the model's own service, run in this process without a port."""
    from contracts.registry import Registry, parse_ref
    from deploy.cli.serving.in_process import InProcessService

    endpoints = load_endpoints(profile)
    name = parse_ref(ref)[0]
    values = load_deployment(profile, name)
    registry = Registry(endpoints)
    version = registry.resolve(values.model if ref == name else ref)
    bundle = registry.fetch(f"{version.name}:{version.version}")
    with InProcessService(endpoints, version, bundle, values.config) as service:
        for body in _bodies(rows, explain):
            status, answer = service.predict(body)
            if status != 200:
                raise problem(status, answer)
            yield answer


def shown(predictions: list[dict[str, Any]]) -> Table:
    """The answers as a table, whatever their problem; of long lists the beginning, of objects nothing."""
    first = predictions[0]
    names = [name for name, value in first.items() if name not in _ELSEWHERE | _FILES and not isinstance(value, dict)]
    numeric = [name for name in names if isinstance(first[name], float)]
    made = table("row", *names, "notes", right=("row", *numeric))
    for index, one in enumerate(predictions):
        made.add_row(str(index), *(_cell(one[name]) for name in names), notes(one))
    return made


def _cell(value: Any) -> str:
    if isinstance(value, dict):  # in a list: its name
        return _cell(next(iter(value.values()), None))
    if not isinstance(value, list):
        return number(value, 4 if not isinstance(value, float) or abs(value) < _LARGE else 1)
    cells = [_cell(item) for item in value[:_ITEMS]]
    if len(value) > _ITEMS and isinstance(value[0], float):
        return f"{', '.join(cells)}, ... ({len(value)} numbers)"
    return ", ".join([*cells, *map(_cell, value[_ITEMS:])]) or "-"


def notes(one: dict[str, Any]) -> str:
    """The reasons of a prediction and its flags, as words; a dash without any."""
    reasons = [f"{named(reason)} ({reason['contribution']:+.2f})" for reason in one.get("reasons") or []]
    return ", ".join([*reasons, *(one.get("flags") or [])]) or "-"


def named(reason: dict[str, Any]) -> str:
    """The feature of a reason with its value."""
    value = reason["value"]
    return str(reason["feature"]) if value is None else f"{reason['feature']}={number(value, 2)}"
