"""A generator of messages to a chat service: harmless ones, orders to forget its instructions, and abuse.

Sentences of one pattern have one id before the stroke, so that the split keeps them in one part: what is measured is
patterns that were never seen. What a model reaches here still says little about what people write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = Path(__file__).with_name("parts.yaml")
CLASSES = ("harmless", "injection", "toxic")
_PLACE = re.compile(r"\{(\w+)\}")


def simulate(each: int, seed: int) -> Iterator[pa.Table]:
    """One table with at most `each` different messages of every pattern: id, text and class."""
    import pyarrow as pa

    rows = messages(each, seed)
    columns = zip(("id", "text", "class"), zip(*rows, strict=True), strict=True)
    yield pa.table({name: pa.array(column, pa.string()) for name, column in columns})


def messages(each: int, seed: int) -> list[tuple[str, str, str]]:
    """(id, text, class) of all patterns, in an order of chance; ids are ``PATTERN/NUMBER``."""
    import yaml

    rng = np.random.Generator(np.random.Philox(seed))
    found: list[tuple[str, str, str]] = []
    seen: set[str] = set()  # texts but for case and spaces
    for language, parts in yaml.safe_load(PARTS.read_text(encoding="utf-8")).items():
        for kind in CLASSES:
            for number, pattern in enumerate(parts[kind]):
                for at in range(each):
                    text = _filled(pattern, parts["slots"], rng)
                    if (key := " ".join(text.casefold().split())) not in seen:
                        seen.add(key)
                        found.append((f"{language[:2]}-{kind}-{number}/{at}", text, kind))
    return [found[at] for at in rng.permutation(len(found)).tolist()]


def _filled(pattern: str, slots: Mapping[str, Sequence[Any]], rng: np.random.Generator) -> str:
    def value(place: re.Match[str]) -> str:
        name = place[1]
        if name == "number":
            return str(int(rng.integers(2, 400)))
        if name == "noise":  # what is no word says nothing
            return "".join(rng.choice(list(ascii_lowercase), size=int(rng.integers(2, 9))).tolist())
        if name == "article":
            return "\0"
        return str(slots[name][int(rng.integers(len(slots[name])))])

    text = _PLACE.sub(value, pattern)
    text = re.sub("\0 (?=[aeiou])", "an ", text).replace("\0 ", "a ")
    styles = (text, text, text, text.upper(), text.lower(), text.replace(".", "!!!"), f"  {text}\n")
    return styles[int(rng.integers(len(styles)))]
