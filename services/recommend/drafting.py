"""Lists that two versions draft: each takes its turns, and clicks are credited to who put the item there.

Of a canary whose policy judges drafted lists the router tells the candidate where the champion is. People then compare
both versions in one list, which takes far fewer of them than comparing people of one version with those of the other.
Each version keeps to its own rules.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.request import Request as Outgoing
from urllib.request import urlopen

import numpy as np
import orjson

from contracts.problems.ranking import Ranked
from services.logs import log_event
from services.model.scoring import Scored
from services.server.requests import Request

WITH, ASKED = b"x-draft-with", b"x-drafting"
"""Headers: of the router, where the other version is; and to it, that its list is not shown as it is."""
# A port of this machine, or of a Service beside this pod: no name of another network.
_ADDRESS = re.compile(r"(?:127\.0\.0\.1|[a-z0-9](?:[-a-z0-9]*[a-z0-9])?):[0-9]{1,5}")
_SECONDS = 1.0
_KEYS = ("authorization", "x-api-key")


class Others(NamedTuple):
    """The list of another version, as its answer has it."""

    version: str
    items: Sequence[Mapping[str, Any]]


async def others_list(request: Request, document: Any) -> Others | None:
    """What the version that the router names would show; None where it names none, or that one does not answer."""
    address = request.header(WITH)
    if not _ADDRESS.fullmatch(address):
        return None
    headers = {"content-type": "application/json", ASKED.decode(): "1"}
    headers |= {name: value for name in _KEYS if (value := request.header(name.encode()))}
    asked = Outgoing(f"http://{address}/recommend", orjson.dumps(document), headers)
    try:
        answer = await asyncio.to_thread(_answer, asked)
        return Others(str(answer["version"]), answer["items"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        log_event("draft_failed", logging.WARNING, address=address, error=str(err))
        return None


def _answer(asked: Outgoing) -> Any:
    with urlopen(asked, timeout=_SECONDS) as answer:
        return json.load(answer)


def drafted(scored: Scored, version: str, others: Others, rng: np.random.Generator) -> Scored:
    """The answer with a list that both versions draft, as long as the own one.

    F. Radlinski, M. Kurup, T. Joachims: How does clickthrough data reflect retrieval quality?, 2008: in each round
    chance says who is first, and both put their best item there that is not in the list.
    """
    own: Ranked = scored.answers[0]
    mine = list(zip(own.items, own.scores, own.why, own.because, strict=True))
    theirs = [(one["item"], float(one["score"]), one["why"], tuple(one["because"])) for one in others.items]
    found = dict[str, tuple[Any, str]]()
    while len(found) < len(mine):
        before = len(found)
        sides = [(mine, version), (theirs, others.version)]
        for at in rng.permutation(2).tolist():
            rows, name = sides[at]
            best = next((row for row in rows if row[0] not in found), None)
            if best is not None and len(found) < len(mine):
                found[best[0]] = (best, name)
        if len(found) == before:
            break
    rows = [row for row, _ in found.values()]
    items, scores, why, because = (tuple(column) for column in zip(*rows, strict=True)) if rows else ((),) * 4
    team = tuple(name for _, name in found.values())
    ranked = replace(
        own, items=items, scores=scores, why=why, because=because, propensity=(), measures={}, base=(), team=team
    )
    answers = np.empty(1, dtype=object)
    answers[0] = ranked
    return replace(scored, answers=answers, decided=[list(items)], shown=[None] * len(scored.shown))
