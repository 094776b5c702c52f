"""``POST /recommend``: a list of items for one person, or for the items of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import orjson

from contracts.groups import SMALL_GROUP, UNKNOWN_GROUP
from contracts.problems.ranking import MEASURES, OF_GROUP, SEPARATOR, entries, listed
from services.errors import checked_members, invalid
from services.model.predict import record, run
from services.model.prediction_log import new_id
from services.model.request_schema import Batch
from services.model.runtime import RowRuntime
from services.model.scoring import Model
from services.recommend.drafting import ASKED, WITH, drafted, others_list
from services.server.lifecycle import Api
from services.server.openapi import operation
from services.server.requests import Answer, Request, Route

_NAME = 256  # characters of a name
_LISTED = 10_000  # items of a member
UNKNOWN, UNKNOWN_ITEMS, UNKNOWN_ATTRIBUTES = "unknown_user", "unknown_items", "unknown_attributes"

_FLAGS = (
    f"{UNKNOWN}: of no history; {UNKNOWN_ITEMS}: some of the session are not in the catalogue; {UNKNOWN_ATTRIBUTES}: "
    f"some of the context are of no item; {UNKNOWN_GROUP}: no group of enough people has the name that the context "
    f"says; {SMALL_GROUP}: the person's has too few, and what is popular is that of all"
)


class RecommendHandler:
    """Serves ``/recommend`` of one runtime."""

    def __init__(self, runtime: RowRuntime) -> None:
        self._runtime = runtime

    async def __call__(self, request: Request) -> Answer:
        """Answer ``{"user", "items", "k", "context", "diversity", "exclude"}``, all of them optional."""
        model = self._runtime.model()
        document = await request.json()
        start = perf_counter()
        batch = self._batch(model, document)
        metrics = self._runtime.metrics
        metrics.stage["decode"].observe(perf_counter() - start)
        drafts = self._runtime.settings.drafts
        theirs = asyncio.ensure_future(others_list(request, document)) if drafts and request.header(WITH) else None
        scored = await run(self._runtime, model, batch, 0, request.options)
        if theirs is not None and (others := await theirs) is not None:
            scored = drafted(scored, self._runtime.version, others, np.random.default_rng())
        start = perf_counter()
        found = scored.answers[0]
        shown = not (drafts and request.header(ASKED))  # who drafts shows half of this list, and logs what it shows
        identifier = record(self._runtime, model, batch, scored, request.options.arrived)[0] if shown else new_id()
        windows = getattr(model.rows, "windows", None)
        if shown and windows is not None:
            windows.shown(identifier, str(batch.columns["user"][0]), found.items)
        answer = {
            "model": self._runtime.name,
            "version": self._runtime.version,
            "id": identifier,
            "items": entries(found),
            **{name: found.measures.get(name) for name in MEASURES},
            "flags": batch.flags[0],
        }
        body = orjson.dumps(answer)
        metrics.stage["encode"].observe(perf_counter() - start)
        return Answer(body)

    def _batch(self, model: Model, document: Any) -> Batch:
        """The row that a request means.

        Raises:
            Problem: 422, naming every member that is wrong.
        """
        if type(document) is not dict:
            raise invalid([("(request)", 'expected an object, such as {"user": "7", "k": 10}')])
        engine: Any = model.engine
        checks = _checks(_longest(model), list(engine.model.groups.names))
        values = checked_members(document, checks)
        fields = {item.name: item for item in model.schemas.by_features.fields}
        given = {
            "user": values["user"],
            "items": values["items"],
            "k": fields["k"].default if values["k"] is None else values["k"],
            "diversity": fields["diversity"].default if values["diversity"] is None else values["diversity"],
            "exclude": values["exclude"],
            "attributes": values["context"][0],
            "age": values["context"][1],
            "group": values["context"][2],
            "explore": 1,
        }
        batch = model.schemas.by_features.batch({name: [given[name]] for name in fields}, where="{name}")
        if values["user"] and not engine.knows(values["user"]):
            batch.flags[0].append(UNKNOWN)
        batch.flags[0] += engine.group_of(values["user"], values["context"][2])[1]
        for flag, said, known in (
            (UNKNOWN_ITEMS, values["items"], engine.places),
            (UNKNOWN_ATTRIBUTES, values["context"][0], engine.model.attributes),
        ):
            if any(name not in known for name in listed(said)):
                batch.flags[0].append(flag)
        return batch


def _longest(model: Model) -> int:
    """Items of the longest list that may be asked for."""
    output: Any = model.output
    return int(output.longest)


def _checks(longest: int, kinds: Sequence[str]) -> dict[str, Callable[[Any], Any]]:
    """How each member is read; all raise ValueError, saying what is accepted."""
    return {
        "user": _user,
        "items": _names,
        "k": lambda given: _count(given, longest),
        "context": lambda given: _context(given, kinds),
        "diversity": _level,
        "exclude": _names,
    }


def _user(given: Any) -> str:
    if given is None:
        return ""
    text = str(given) if type(given) is int else given
    if type(text) is not str or len(text) > _NAME:
        raise ValueError(f"expected a text of at most {_NAME} characters, or a whole number")
    return text


def _names(given: Any) -> str:
    if given is None:
        return ""
    if type(given) is not list or len(given) > _LISTED:
        raise ValueError(f"expected a list of at most {_LISTED} names")
    names = [str(one) if type(one) is int else one for one in given]
    if any(type(one) is not str or not one or len(one) > _NAME or SEPARATOR in one for one in names):
        raise ValueError(f"expected names of 1 to {_NAME} characters without {SEPARATOR}, or whole numbers")
    return SEPARATOR.join(names)


def _count(given: Any, longest: int) -> int | None:
    if given is not None and (type(given) is not int or not 1 <= given <= longest):
        raise ValueError(f"expected a whole number from 1 to {longest}")
    count: int | None = given
    return count


def _level(given: Any) -> float | None:
    if given is not None and (type(given) not in (int, float) or not 0 <= given <= 1):
        raise ValueError("expected a number from 0 to 1")
    return None if given is None else float(given)


def _context(given: Any, kinds: Sequence[str]) -> tuple[str, float, str]:
    """The attributes that items must have one of, the age of who asks, and of what groups they are."""
    if given is None:
        return "", 0.0, ""
    if type(given) is not dict or not given.keys() <= {"attributes", "age", *kinds}:
        also = "".join(f', "{kind}" of who asks' for kind in kinds)
        raise ValueError(
            'expected an object with "attributes", a list of names of which an item must have one, and "age" in years'
            + also
        )
    said = {kind: given[kind] for kind in kinds if given.get(kind) is not None}
    for kind, name in said.items():
        if type(name) not in (str, int) or SEPARATOR in str(name) or not 0 < len(str(name).strip()) <= _NAME:
            raise ValueError(f"expected {kind} to be a name of 1 to {_NAME} characters without {SEPARATOR}")
    age = given.get("age", 0)
    if type(age) not in (int, float) or not 0 <= age <= 150:
        raise ValueError("expected an age from 0 to 150")
    groups = SEPARATOR.join(f"{kind}{OF_GROUP}{str(name).strip()}" for kind, name in said.items())
    return _names(given.get("attributes")), float(age), groups


def recommend_paths(runtime: RowRuntime) -> dict[str, Any]:
    """The path ``/recommend``."""
    model = runtime.model()
    fields = {item.name: item for item in model.schemas.by_features.fields}
    names = {"type": "array", "items": {"type": ["string", "integer"]}, "maxItems": _LISTED}
    attributes = {**names, "description": "of which an item must have one"}
    age = {"type": "number", "minimum": 0, "maximum": 150, "description": "in years; items may have an age limit"}
    engine: Any = model.engine
    kinds = engine.model.groups.names
    group = {"type": ["string", "integer", "null"], "description": "of who asks; what is popular there is listed"}
    groups = dict.fromkeys(kinds, group)
    properties: Mapping[str, Any] = {
        "user": {"type": ["string", "integer", "null"], "description": "who asks; unknown ones are served as well"},
        "items": {**names, "description": "items of the session, the latest last"},
        "k": {"type": "integer", "minimum": 1, "maximum": _longest(model), "default": fields["k"].default},
        "context": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"attributes": attributes, "age": age, **groups},
        },
        "diversity": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": fields["diversity"].default,
            "description": fields["diversity"].description,
        },
        "exclude": {**names, "description": "items that must not be listed"},
    }
    request = {"type": "object", "additionalProperties": False, "properties": properties}
    answer = {
        "type": "object",
        "required": ["model", "version", "id", "items", "flags"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "id": {"type": "string", "description": "joins what was taken to this list, see /feedback"},
            "items": {"type": "array", "items": {"$ref": "#/components/schemas/RankedItem"}},
            **{name: {"type": ["number", "null"], "description": text} for name, text in MEASURES.items()},
            "flags": {"type": "array", "items": {"type": "string"}, "description": _FLAGS},
        },
    }
    example = {"user": "1", "k": 5}
    made = operation("Recommend", "recommend", answer, {**request, "example": example})
    return {"/recommend": {"post": made}}


RECOMMEND = Api(
    routes=lambda runtime: [Route("/recommend", {"POST": RecommendHandler(runtime)})],
    busy=("/recommend",),
    paths=recommend_paths,
)
