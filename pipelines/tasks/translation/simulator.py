"""A generator of sentences in English and Chinese that say the same, by a small grammar of both.

English bends its verbs and puts place and time at the end; Chinese puts them before the verb, counts by measure words
and marks what is over. A verb and what it is done to, or what is said of a thing, are one combination: its sentences
have one id before the stroke, so that the split keeps them in one part, and what is measured was never learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = Path(__file__).with_name("parts.yaml")
_TRIES = 50  # for one sentence that was not there before


def simulate(sentences: int, seed: int) -> Iterator[pa.Table]:
    """One table with `sentences` different ones, half of them from English, half from Chinese: id, source, target."""
    import pyarrow as pa

    columns = zip(("id", "source", "target"), zip(*pairs(sentences, seed), strict=True), strict=True)
    yield pa.table({name: pa.array(column, pa.string()) for name, column in columns})


def pairs(sentences: int, seed: int) -> list[tuple[str, str, str]]:
    """(id, source, target) in an order of chance; ids are ``COMBINATION/NUMBER``. Fewer where no more can be made."""
    import yaml

    words = yaml.safe_load(PARTS.read_text(encoding="utf-8"))
    rng = np.random.Generator(np.random.Philox(seed))
    grammar = _Grammar(words, rng)
    found: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for number in range(sentences):
        for _ in range(_TRIES):
            combination, english, chinese = grammar.sentence()
            if english not in seen:
                seen.add(english)
                both = (english, chinese) if rng.random() < 0.5 else (chinese, english)
                found.append((f"{combination}/{number}", *both))
                break
    return found


@dataclass(frozen=True, kw_only=True)
class _Object:
    """What something is done to, in both languages; `name` is that of the noun."""

    name: str
    english: str
    chinese: str


class _Grammar:
    def __init__(self, words: Mapping[str, Sequence[Any]], rng: np.random.Generator) -> None:
        self._words, self._rng = words, rng
        self._patterns: list[Callable[[], tuple[str, str, str]]] = [
            self._past, self._past, self._habit, self._now, self._future, self._not_past, self._question,
            self._wish, self._duty, self._price, self._comparison, self._place, self._gift, self._reason,
        ]  # fmt: skip

    def sentence(self) -> tuple[str, str, str]:
        """The combination, and the sentence in English and in Chinese."""
        return self._patterns[self._rng.integers(len(self._patterns))]()

    def _one(self, kind: str) -> Any:
        values = self._words[kind]
        return values[int(self._rng.integers(len(values)))]

    def _noun(self, *kinds: str) -> Any:
        fit = [noun for noun in self._words["nouns"] if set(kinds) & set(noun[4])]
        return fit[self._rng.integers(len(fit))]

    def _object(self, kinds: Sequence[str]) -> _Object:
        """Some: one, several, a certain one, with or without an adjective."""
        one, several, chinese, measure, _ = self._noun(*kinds)
        adjective, _, _, before = self._one("adjectives") if self._rng.random() < 0.4 else ("", "", "", "")
        form = self._rng.integers(4)
        if form == 0:
            (count, number), thing = self._one("counts"), several
        elif form == 1:
            (count, number), thing = (("this", "这"), ("that", "那"))[self._rng.integers(2)], one
        else:
            first = (adjective or one)[0]
            (count, number), thing = ("an" if first in "aeiou" else "a", "一"), one
        english = f"{count} {adjective} {thing}" if adjective else f"{count} {thing}"
        return _Object(name=one, english=english, chinese=f"{number}{measure}{before}{chinese}")

    def _parts(self) -> tuple[Any, Any, _Object, tuple[str, str]]:
        """Subject, verb, object, and a place or none."""
        verb = self._one("verbs")
        kinds = verb[5]
        place = tuple(self._one("places")) if self._rng.random() < 0.5 and "sight" not in kinds else ("", "")
        return self._one("subjects"), verb, self._object(kinds), place

    def _past(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("past")
        english = _english(who[0], verb[2], what.english, place, time)
        return _key(verb, what), english, f"{when}{who[1]}{where}{verb[4]}了{what.chinese}。"

    def _not_past(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("past")
        english = _english(who[0], "did not", verb[0], what.english, place, time)
        return _key(verb, what), english, f"{when}{who[1]}没有{where}{verb[4]}{what.chinese}。"

    def _habit(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("habit")
        does = verb[1] if who[2] else verb[0]
        parts = ["often", does, what.english, place] if time == "often" else [does, what.english, place, time]
        return _key(verb, what), _english(who[0], *parts), f"{who[1]}{when}{where}{verb[4]}{what.chinese}。"

    def _now(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        english = _english(who[0], _be(who), verb[3], what.english, place)
        return _key(verb, what), english, f"{who[1]}正{where or '在'}{verb[4]}{what.chinese}。"

    def _future(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("future")
        english = _english(who[0], "will", verb[0], what.english, place, time)
        return _key(verb, what), english, f"{who[1]}{when}要{where}{verb[4]}{what.chinese}。"

    def _question(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("past")
        asked = _english("did", who[0], verb[0], what.english, place, time, mark="?")
        return _key(verb, what), asked, f"{when}{who[1]}{where}{verb[4]}了{what.chinese}吗？"

    def _wish(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        english = _english(who[0], "wants" if who[2] else "want", "to", verb[0], what.english, place)
        return _key(verb, what), english, f"{who[1]}想{where}{verb[4]}{what.chinese}。"

    def _duty(self) -> tuple[str, str, str]:
        who, verb, what, (place, where) = self._parts()
        time, when = self._one("future")
        english = _english(who[0], "must", verb[0], what.english, place, time)
        return _key(verb, what), english, f"{who[1]}{when}必须{where}{verb[4]}{what.chinese}。"

    def _price(self) -> tuple[str, str, str]:
        one, _, chinese, measure, _ = self._noun("thing", "paper", "food", "machine")
        price = int(self._rng.integers(3, 1_000))
        which, this = (("this", "这"), ("that", "那"))[self._rng.integers(2)]
        english = _english(which, one, "costs", str(price), "yuan")
        return f"costs-{one}", english, f"{this}{measure}{chinese}卖{price}元。"

    def _comparison(self) -> tuple[str, str, str]:
        one, _, chinese, measure, _ = self._noun("thing", "paper", "machine", "sight")
        word, more, is_so, _ = self._said()
        english = _english("this", one, "is", more, "than that one")
        return f"{word}-{one}", english, f"这{measure}{chinese}比那{measure}{is_so}。"

    def _place(self) -> tuple[str, str, str]:
        one, several, chinese, measure, _ = self._noun("small")
        (count, number), (spot, where) = self._one("counts"), self._one("spots")
        return f"there-{one}", _english("there are", count, several, spot), f"{where}有{number}{measure}{chinese}。"

    def _gift(self) -> tuple[str, str, str]:
        who, whom, what = self._one("subjects"), self._one("subjects")[:2], self._object(["small"])
        if whom[0] in ("I", "you", "we", "they", who[0]):
            whom = ("the neighbours", "邻居们")
        time, when = self._one("past")
        english = _english(who[0], "gave", whom[0], what.english, time)
        return f"give-{what.name}", english, f"{when}{who[1]}给了{whom[1]}{what.chinese}。"

    def _reason(self) -> tuple[str, str, str]:
        who, verb, _, _ = self._parts()
        one, _, chinese, measure, _ = self._noun(*verb[5])
        word, _, is_so, _ = self._said()
        denied = "does not want" if who[2] else "do not want"
        english = _english(who[0], denied, "to", verb[0], "that", one, "because it is too", word)
        return f"{verb[0]}-{one}", english, f"{who[1]}不想{verb[4]}那{measure}{chinese}，因为太{is_so}了。"

    def _said(self) -> Any:
        """An adjective that can be compared."""
        fit = [one for one in self._words["adjectives"] if one[1]]
        return fit[self._rng.integers(len(fit))]


def _key(verb: Sequence[Any], what: _Object) -> str:
    return f"{verb[0]}-{what.name}"


def _be(who: Sequence[Any]) -> str:
    return "am" if who[0] == "I" else "is" if who[2] else "are"


def _english(*parts: str, mark: str = ".") -> str:
    """The parts that are not empty, as a sentence."""
    text = " ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}{mark}"
