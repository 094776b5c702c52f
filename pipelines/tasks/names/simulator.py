"""A generator of sentences with names of people, places and organisations, English and Chinese, and where they stand.

Names and sentences are put together of what ``parts.yaml`` holds, so that most of the test's are in no sentence of the
training; what a model reaches here says nothing about real texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.tasks.names.config import SampleConfig

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = Path(__file__).with_name("parts.yaml")
_PLACE = re.compile(r"\{(PER|LOC|ORG)\}")
Draw = Mapping[str, Callable[[], str]]


def _english(parts: Mapping[str, Sequence[str]], rng: np.random.Generator) -> Draw:
    def pick(name: str) -> str:
        return parts[name][int(rng.integers(len(parts[name])))]

    def family() -> str:
        name = pick("first") + pick("last")
        return f"{name}-{pick('first')}{pick('last')}" if rng.random() < 0.08 else name

    def person() -> str:
        forms = (
            pick("given"),
            f"{pick('given')} {family()}",
            f"{pick('given')} {pick('first')[0]}. {family()}",
            family(),
        )
        return forms[int(rng.choice(4, p=(0.25, 0.55, 0.1, 0.1)))]

    def place() -> str:
        name = pick("first") + pick("town" if rng.random() < 0.7 else "land")
        return f"{('New', 'Upper', 'Port', 'San')[int(rng.integers(4))]} {name}" if rng.random() < 0.15 else name

    def organisation() -> str:
        partners = f"{family()}, {family()} and {family()}"
        short = pick("first") + pick("last")
        trade = f"{pick('first')}{pick('town')} {pick('trade')}"
        form = pick("form")
        forms = (partners, f"{short} {form}", trade, f"{family()}-{family()}", f"{trade} {form}", short)
        return forms[int(rng.choice(6, p=(0.15, 0.25, 0.25, 0.1, 0.15, 0.1)))]

    return {"PER": person, "LOC": place, "ORG": organisation}


def _chinese(parts: Mapping[str, Sequence[str]], rng: np.random.Generator) -> Draw:
    def pick(name: str, times: int = 1) -> str:
        return "".join(parts[name][at] for at in rng.integers(len(parts[name]), size=times).tolist())

    return {
        "PER": lambda: pick("surname") + pick("sign", int(rng.integers(1, 3))),
        "LOC": lambda: pick("land", 2) + pick("area"),
        "ORG": lambda: pick("land", 2) + pick("work"),
    }


_LANGUAGES: Mapping[str, Callable[[Mapping[str, Sequence[str]], np.random.Generator], Draw]] = {
    "english": _english,
    "chinese": _chinese,
}


def simulate(config: SampleConfig, seed: int) -> Iterator[pa.Table]:
    """One table with `config.texts` sentences, in turn of the languages: id, text and spans as JSON."""
    import pyarrow as pa

    rng = np.random.Generator(np.random.Philox(seed))
    parts = _parts()
    made = [(parts[name]["sentences"], _LANGUAGES[name](parts[name], rng)) for name in config.languages]
    rows: dict[str, str] = {}
    while len(rows) < config.texts:
        templates, draw = made[len(rows) % len(made)]
        text, spans = _filled(templates[int(rng.integers(len(templates)))], draw)
        rows.setdefault(text, json.dumps(spans))
    values = [(f"t{at}", text, spans) for at, (text, spans) in enumerate(rows.items())]
    columns = zip(("id", "text", "spans"), zip(*values, strict=True), strict=True)
    yield pa.table({name: pa.array(column, pa.string()) for name, column in columns})


def _parts() -> dict[str, dict[str, list[str]]]:
    import yaml

    found: dict[str, dict[str, Any]] = yaml.safe_load(PARTS.read_text(encoding="utf-8"))
    return {
        language: {
            name: [line.replace("\\n", "\n") for line in text.splitlines()] if name == "sentences" else text.split()
            for name, text in parts.items()
        }
        for language, parts in found.items()
    }


def _filled(template: str, draw: Draw) -> tuple[str, list[tuple[int, int, str]]]:
    made, spans, at = "", [], 0
    for match in _PLACE.finditer(template):
        made += template[at : match.start()]
        value = draw[match[1]]()
        spans.append((len(made), len(made) + len(value), match[1]))
        made, at = made + value, match.end()
    return made + template[at:], spans
