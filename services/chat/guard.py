"""What looks at messages and answers: rules for personal data, secrets and orders to forget, and a trained classifier.

Rules are patterns, with checksums where what they look for has one. What both miss is measured by
``make bench-guard``; see docs/language.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from contracts.errors import PlatformError
from contracts.guard_rules import RULES, Found, Rule, find
from contracts.texts import language
from services.chat.classifier import STEP, WINDOW, classifier_of
from services.logs import log_event
from services.settings import GuardSettings

HELD = 200  # characters at the end of a stream that may wait for what they are the beginning of
FIRST_SECONDS = 0.05  # that the first token waits at most
_FIRST_WORD, _FIRST_SIGNS = 16, 4  # characters that are told then: of a word, and of what may be a number or a key
_LETTERS = 4  # fewer tell no language
# What a longer piece may begin with: no spaces but between digits, and no letters of languages without spaces.
_OPEN = re.compile(r"(?:-----BEGIN[A-Z ]{0,30}-{0,5}|(?:[\w@.%+/=()_-]|(?<=[\d)]) )+)\Z", re.ASCII)


@dataclass(frozen=True)
class Verdict:
    """What a whole text is: the name of a class of the classifier, or of another language than allowed."""

    name: str
    refuse: bool


LANGUAGE = "language"
HARMLESS = "harmless"
BEFORE_ONLY = "injection"  # a class that answers are not judged by


class Guard:
    """The rules and the classifier that settings ask for.

    Raises:
        PlatformError: ``guard.classifier`` is no bundle that can be asked, or ``guard.classes`` names none of its own.
    """

    def __init__(self, settings: GuardSettings) -> None:
        self._action: dict[str, str] = settings.model_dump()
        self._settings = settings
        self._classifier = classifier_of(settings.classifier) if settings.classifier else None
        known = self._classifier.classes if self._classifier else ()
        if unknown := sorted(set(settings.classes) - set(known)):
            raise PlatformError(
                f"guard.classes names {unknown[0]!r}",
                detail=f"classes of guard.classifier: {', '.join(known) or 'none is set'}",
                fix="name classes of the classifier",
                code="bad_config",
            )
        usual = {HARMLESS: "off"}
        self._classes = {name: settings.classes.get(name, usual.get(name, "note")) for name in known}
        languages = [LANGUAGE] if settings.languages else []
        self.names = [*(rule.name for rule in RULES), *(f"class:{name}" for name in known), *languages]
        self.judges_answers = bool(languages) or any(
            action != "off" for name, action in self._classes.items() if name != BEFORE_ONLY
        )
        self.before = [rule for rule in RULES if self._action[rule.group] != "off"]
        self.partly = len(self.before) < len(RULES)  # whether some are off
        self.after = [rule for rule in self.before if rule.group != "injection"]
        # Whether answers may be changed, so that probabilities of their tokens would tell what is masked.
        self.masks = any(self._action[rule.group] in ("mask", "refuse") for rule in self.after)

    def refuses(self, rule: Rule) -> bool:
        """Whether a text in which the rule holds is refused."""
        return bool(self._action[rule.group] == "refuse")

    def judged(self, text: str, *, answer: bool = False) -> list[Verdict]:
        """What the classifier and the list of languages say of a whole text; the worst first."""
        found: list[Verdict] = []
        if self._classifier and any(action != "off" for action in self._classes.values()) and text.strip():
            for name, chance in self._classifier.likely(text).items():
                action = self._classes[name]
                if action != "off" and chance >= self._settings.threshold and not (answer and name == BEFORE_ONLY):
                    found.append(Verdict(f"class:{name}", action == "refuse"))
        allowed = self._settings.languages
        if allowed and sum(map(str.isalpha, text[: _LETTERS * 20])) >= _LETTERS and language(text) not in allowed:
            found.append(Verdict(LANGUAGE, self._settings.other_language == "refuse"))
        return sorted(found, key=lambda one: not one.refuse)

    def decided(self, side: str, name: str, action: str) -> None:
        """Log a decision by its rule, without the text."""
        by: dict[str, Any] = (
            {"classifier": self._classifier.bundle} if self._classifier and name.startswith("class:") else {}
        )
        log_event("guard", side=side, rule=name, action=action, **by)

    def action(self, rule: Rule) -> str:
        """What becomes of what a rule finds."""
        return self._action[rule.group]

    def passed(self, text: str, rules: Sequence[Rule], *, answer: bool = False) -> str | None:
        """A whole text as it may go on; None when it is refused."""
        found = find(text, rules)
        if any(one.refuse for one in self.judged(text, answer=answer)):
            return None
        return None if any(self.refuses(one.rule) for one in found) else self.masked(text, found)

    def masked(self, text: str, found: Sequence[Found], told: int = 0) -> str:
        """The text after `told` characters, with the names of rules in the place of what is to be masked."""
        for one in reversed(found):
            if self._action[one.rule.group] == "mask" and one.end > told:
                text = f"{text[: max(one.start, told)]}[{one.rule.name}]{text[one.end :]}"
        return text[told:]


class Watcher:
    """Looks at an answer while it is written; what a rule may still find stays until it is whole.

    The first token stays `FIRST_SECONDS` at most, see `release`. The classifier holds nothing back: it judges a window
    whenever one is full, and the end. What it refuses ends the answer there, and what was told by then was told.

    Args:
        clock: gives seconds.

    Attributes:
        hits: names of the rules that held.
        refused: whether the answer ends here.
    """

    def __init__(self, guard: Guard, clock: Callable[[], float] = monotonic) -> None:
        self._guard, self._held, self._clock = guard, "", clock
        self._told = 0  # characters of what is held that were told all the same
        self._first, self._since = 0, -1.0  # length of the first piece, and when it came; below 0: nothing waits
        self._begun = False
        self._window, self._fresh = "", 0  # the end of the text, and how much of it was not judged yet
        self.hits: list[str] = []
        self.refused = False

    def feed(self, text: str, *, last: bool = False) -> str:
        """What may be told of what has come; all of it, when it is the `last`."""
        if self.refused:
            return ""
        if self._guard.judges_answers and self._judge(text, last):
            return ""
        if not self._guard.masks:  # nothing is changed, so that nothing has to wait
            self._held += text
            if last:
                self.hits += [one.rule.name for one in find(self._held, self._guard.after)]
            return text
        if text and not self._begun and self._since < 0:
            self._first, self._since = len(text), self._clock()
        told = self._look(self._held + text, last)
        if told:
            self._begun, self._since = True, -1.0
        return told

    @property
    def left(self) -> float | None:
        """Seconds until `release` has something to tell; None: nothing waits for it."""
        if self._since < 0 or self.refused:
            return None
        return max(0.0, self._since + FIRST_SECONDS - self._clock())

    def release(self) -> str:
        """The beginning of the first piece, told though it may be that of what a rule finds; the rest is masked then.

        It is a word, or four characters of anything else: the first ones of a number tell whose it is to nobody.
        """
        if self.left != 0.0:
            return ""
        first = self._held[: self._first]
        self._told = min(len(first), _FIRST_WORD if first.strip().isalpha() else _FIRST_SIGNS)
        self._begun, self._since = True, -1.0
        return first[: self._told]

    def _look(self, text: str, last: bool) -> str:
        """What of a text that was not told yet may be told by the rules; the rest is held."""
        waits = None if last else _OPEN.search(text, max(0, len(text) - HELD))
        cut = waits.start() if waits else len(text)
        found, told = find(text, self._guard.after), self._told
        if found and found[-1].end > cut:  # it may be longer, or be none after all
            cut = min(cut, found[-1].start) if not last else cut
            found = [one for one in found if one.end <= cut]
        self._held, self._told = text[cut:], max(0, told - cut)
        self.hits += [one.rule.name for one in found]
        if bad := next((one for one in found if self._guard.refuses(one.rule)), None):
            self.refused, self._held = True, ""
            return self._guard.masked(text[: bad.start], [one for one in found if one.end <= bad.start], told)
        return self._guard.masked(text[:cut], found, told)

    def _judge(self, text: str, last: bool) -> bool:
        """Judge the window, when one is full or it is the `last`; whether the answer ends here."""
        self._window, self._fresh = (self._window + text)[-WINDOW:], self._fresh + len(text)
        if not self._fresh or (self._fresh < STEP and not last):
            return False
        self._fresh = 0
        found = self._guard.judged(self._window, answer=True)
        self.hits += [one.name for one in found if one.name not in self.hits]
        self.refused = any(one.refuse for one in found)
        return self.refused
