"""Personal data in columns: found by content, treated as ``data.pii`` declares, refused where nothing is declared.

It is the first thing that happens to a row, so that what was redacted is in no part, log, artifact or error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.pii.finders import open_finder
from contracts.pii.finding import KINDS, Span, find_all
from contracts.pii.kind import Kind
from contracts.pii.people import is_named
from contracts.pii.prefilter import necessary
from contracts.pii.redaction import KEYED, OPERATORS, Redactor, keys_here
from contracts.pii.rules import KEEP, rules_of
from pipelines.data.chunks import ROW, Chunk, Rejected
from pipelines.settings import setting

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.task import DataConfig

RULES = 1  # raise when the same values would be found or replaced otherwise
UNDECLARED = "undeclared_pii"
WITHHELD = "(withheld)"
_SHOWN = 5
_PROVEN = frozenset({"card", "cn_id", "iban", "secret"})  # one of these is no chance
_CHECKED = _PROVEN | {"cn_credit_code"}  # a number of these has check digits
_FEW = 3  # numbers in a form without check digits that are no chance, if they are half of a column's
_MENTIONED = 0.01  # share of the rows up to which other kinds are mentions, as news and reviews have them
_CODE = re.compile(r"[\d\s-]+")  # a number, or the like: check digits may fit by chance
_MAYBE_CODE = r"\A[0-9\x09-\x0d\x1c-\x20\x{80}-\x{10ffff}-]+\z"  # for RE2
_SO_FEW = 128  # texts that are read sooner than patterns for all of them are prepared
_CHANCE = {kind.name: max(other.chance for other in KINDS if other.name == kind.name) for kind in KINDS}
# Forms in which nothing of ours is: short numbers, moments, codes of few digits, words without digits or signs.
_HARMLESS = (
    r"(?i)^\s*(?:[-+]?\d{0,8}(?:[.,]\d{0,12})?(?:e[-+]?\d{1,3})?|[a-z_ -]*\d{0,5}[a-z]{0,3}"
    r"|\d{4}-\d\d-\d\d(?:[t ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?\s?(?:z|[+-]\d\d:?\d\d)?)?|[^\p{Nd}@＠:：=＝是为]*)\s*$"
)


def treats(data: DataConfig) -> bool:
    """Whether something is taken out, so that the source must not be kept as it was."""
    return any(rule.operator != KEEP for rule in rules_of(data.pii).values())


def reading(data: DataConfig) -> dict[str, Any]:
    """What decides how personal data is treated, for a version's fingerprint; of the key its name alone."""
    rules = rules_of(data.pii)
    keyed = any(rule.operator in KEYED for rule in rules.values())
    finder = open_finder(data.tagger) if treats(data) else None
    named = {"tagger": finder.name} if finder else {}
    return {"rules": RULES, "pii": dict(sorted(data.pii.items())), "key": keys_here().name if keyed else "", **named}


@dataclass
class _Seen:
    """Of one column: rows by kind, in texts and among values that are numbers as a whole, and the first of them.

    quiet: of the rows in texts those that stop no run, see `Kind.stops`.  named: kinds that the column's name says.
    """

    texts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    quiet: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    rows: list[int] = field(default_factory=list)
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hint: str) -> _Seen:
        """Of a column about which `hint` says something, such as its name."""
        said = hint.casefold().replace("_", " ")
        return cls(named=frozenset(kind.name for kind in KINDS if kind.context and kind.context.search(said)))

    def add(self, text: str, found: Iterable[Span], times: int) -> None:
        """A value in `times` rows, with what was found in it."""
        code = _is_code(text)
        self.numbers += times if code else 0
        stopping = {span.kind.name for span in found if span.kind.stops}
        for kind in {span.kind.name for span in found}:
            (self.codes if code else self.texts)[kind] += times
            self.quiet[kind] += 0 if kind in stopping else times

    def document(self) -> dict[str, Any]:
        """The counts as JSON."""
        counts = {"texts": self.texts, "codes": self.codes, "quiet": self.quiet}
        return {**{name: dict(each) for name, each in counts.items()}, "numbers": self.numbers, "rows": self.rows}

    def count(self, document: Mapping[str, Any], before: int) -> None:
        """Add the counts of another `document`, of rows that come after so many."""
        for mine, name in ((self.texts, "texts"), (self.codes, "codes"), (self.quiet, "quiet")):
            mine.update(document[name])
        self.numbers += document["numbers"]
        self.rows += [row + before for row in document["rows"][: _SHOWN - len(self.rows)]]

    def stops(self) -> dict[str, int]:
        """`sure` without what stops no run."""
        return {kind: rows for kind, rows in self.sure().items() if rows > self.quiet[kind]}

    def sure(self) -> dict[str, int]:
        """Rows by kind, without kinds that occur no more often than check digits fit by chance."""
        found = dict(self.texts)
        for kind, rows in self.codes.items():
            expected, by_chance = _CHANCE[kind] * self.numbers, _CHANCE[kind] * (1 - _CHANCE[kind]) * self.numbers
            if kind not in _CHECKED | self.named and rows < max(_FEW, self.numbers / 2):
                continue  # a large number among others
            if rows > expected + 2 * sqrt(by_chance):
                found[kind] = found.get(kind, 0) + rows
        return found

    def refused(self, rows: int) -> dict[str, int]:
        """Of those that stop a run, kinds for which a column of so many rows has to be declared."""
        found = self.stops()
        return {kind: count for kind, count in found.items() if kind in _PROVEN or count > _MENTIONED * rows}


class PersonalData:
    """Treats the chunks of a source, and remembers what it found; made once for each reading.

    Args:
        strict: refuse a column with personal data for which nothing is declared.

    Raises:
        PlatformError: ``code="bad_config"`` or ``"no_pii_key"``.
    """

    def __init__(self, data: DataConfig, *, strict: bool = True) -> None:
        self._rules, self._strict = rules_of(data.pii), strict
        self._sources = data.columns
        self._finder = open_finder(data.tagger) if treats(data) else None
        self._redactors = {
            operator: Redactor(operator, finder=self._finder)
            for operator in {rule.operator for rule in self._rules.values()} - {KEEP} | {"label"}
        }
        self._treats = treats(data)
        self._seen: dict[str, _Seen] = {}
        self._rows = 0

    @classmethod
    def of_columns(cls, data: DataConfig, names: Mapping[str, str], *, strict: bool) -> PersonalData:
        """For a file that need not have all columns: `names` of those it has, as the configuration calls them."""
        known = {here: data.pii[called] for called, here in names.items() if called in data.pii}
        return cls(replace(data, pii=known), strict=strict)

    def apply(self, chunk: Chunk, *, judged: bool = True) -> Chunk:
        """The chunk as it may be kept; without `judged` another one says whether a column is refused, see `taken`.

        Raises:
            PlatformError: ``code="undeclared_pii"``, with columns, kinds and rows; ``code="bad_config"`` for a column
                that is not there.
        """
        names = [name for name in chunk.table.column_names if name != ROW]
        if unknown := sorted(set(self._rules) - set(names)):
            raise _no_column(unknown[0], names)
        table = chunk.table
        for name in names:
            at = table.column_names.index(name)
            if (treated := self._column(name, table.column(name), table.column(ROW))) is not None:
                table = table.set_column(at, name, treated)
        self._rows += table.num_rows
        if judged:
            self._judge()
        return replace(chunk, table=table, rejected=[self._without(row) for row in chunk.rejected])

    def taken(self) -> dict[str, Any]:
        """What was found since this was called last, as JSON for `add`; it is counted here no more."""
        columns = {name: seen.document() for name, seen in self._seen.items()}
        found = {"rows": self._rows, "columns": columns}
        self._seen, self._rows = {}, 0
        return found

    def add(self, found: Mapping[str, Any], before: int) -> None:
        """Count what another one has `taken` of rows that come after so many, as if they had been treated here.

        Raises:
            PlatformError: ``code="undeclared_pii"``.
        """
        for name, document in found["columns"].items():
            self._seen.setdefault(name, _Seen.of(self._hint(name))).count(document, before)
        self._rows += found["rows"]
        self._judge()

    def _judge(self) -> None:
        if self._strict and (undeclared := self._undeclared()):
            raise self._refusal(undeclared)

    def _hint(self, name: str) -> str:
        return f"{name} {self._sources.get(name, '')}"

    def report(self) -> dict[str, Any]:
        """By column what was done, and rows by kind of what was found, as JSON values; columns without are left out."""
        columns = {
            name: {"operator": self._said(name), "found": self._found(name)}
            for name in dict.fromkeys([*self._rules, *self._seen])
        }
        return {name: said for name, said in columns.items() if said["found"] or said["operator"]}

    def _said(self, name: str) -> str:
        return str(self._rules.get(name, ""))

    def _found(self, name: str) -> dict[str, int]:
        seen = self._seen.get(name, _Seen())
        return seen.sure() if name in self._rules else seen.stops()

    def _column(self, name: str, values: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray | None:
        """The values of a column as they may be kept; None where they stay as they are."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        rule = self._rules.get(name)
        if rule is None and not self._strict:
            return None
        if pa.types.is_integer(values.type) or (rule and rule.operator != KEEP and not pa.types.is_binary(values.type)):
            values = values.cast(pa.string())
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return None
        coded = values.combine_chunks().dictionary_encode()
        hint = self._hint(name)
        read = _worth_reading(coded.dictionary, hint) if rule is None else range(len(coded.dictionary))
        if not read:
            return None
        counts = np.bincount(coded.indices.drop_null().to_numpy(), minlength=len(coded.dictionary))[read]
        seen = self._seen.setdefault(name, _Seen.of(hint))
        made, hits = [], []
        finder = self._finder if rule and rule.operator != KEEP and not rule.whole else None
        texts = coded.dictionary.take(pa.array(read, pa.int64()))
        may_be = _suspects(texts)
        looked = sorted(may_be) if rule is None or rule.operator == KEEP else range(len(texts))
        some = texts.take(pa.array(looked, pa.int64())).to_pylist()
        among = [may_be.get(at, ()) for at in looked]
        for at, text, found in zip(looked, some, find_all(some, hint=hint, finder=finder, among=among), strict=True):
            seen.add(text, found, int(counts[at]))
            if found:
                hits.append(read[at])
            if rule and rule.operator != KEEP:
                redactor = self._redactors[rule.operator]
                made.append(redactor.whole(text) if rule.whole else redactor.replace(text, found))
        counts[looked] = 0
        seen.numbers += int(counts[_codes(texts)].sum()) if counts.any() else 0
        if hits and len(seen.rows) < _SHOWN:
            where = pc.is_in(coded.indices, value_set=pa.array(hits, coded.indices.type))
            seen.rows += rows.filter(where).slice(0, _SHOWN - len(seen.rows)).to_pylist()
        if rule is None or rule.operator == KEEP:
            return None
        return pa.chunked_array([pa.array(made, pa.string()).take(coded.indices)])

    def _without(self, row: Rejected) -> Rejected:
        """A row that cannot be read, without what it may hold of any column."""
        label = self._redactors["label"]
        value = WITHHELD if self._treats and row.value else label.redact(row.value).text
        known = None if row.label is None else WITHHELD if self._treats else label.redact(row.label).text
        return replace(row, value=value, label=known)

    def _undeclared(self) -> dict[str, dict[str, int]]:
        found = {name: seen.refused(self._rows) for name, seen in self._seen.items() if name not in self._rules}
        return {name: kinds for name, kinds in found.items() if kinds}

    def _refusal(self, found: Mapping[str, Mapping[str, int]]) -> PlatformError:
        first = next(iter(found))
        lines = [
            f"{name}: {in_words(kinds)} (rows {', '.join(map(str, self._seen[name].rows))}"
            f"{', ...' if sum(kinds.values()) > len(self._seen[name].rows) else ''})"
            for name, kinds in found.items()
        ]
        told = " ".join(setting(f"data.pii.{name}", "label") for name in found)
        return PlatformError(
            f"column {first!r} holds personal data, and nothing says what happens to it: {in_words(found[first])}",
            detail="\n  ".join([f"looked at {self._rows:,} rows", *lines]),
            fix=f"{told}, or one of {', '.join(name for name in OPERATORS if name != 'label')}; {KEEP} leaves a column "
            "as it is; data.drop leaves it out",
            code=UNDECLARED,
            column=first,
            rows=self._seen[first].rows,
            kinds={name: dict(kinds) for name, kinds in found.items()},
        )


def _worth_reading(values: pa.Array, hint: str) -> list[int]:
    """Places of the texts that may hold what stops a run: not those whose form has nothing of it."""
    import numpy as np
    import pyarrow.compute as pc

    if is_named(hint):
        return list(range(len(values)))
    harmless = pc.match_substring_regex(values, _HARMLESS)
    return [int(at) for at in np.flatnonzero(~_true(harmless))]


def _suspects(texts: pa.Array) -> dict[int, Sequence[Kind]]:
    """By place the texts that may hold personal data, and of which kinds.

    Of ASCII texts RE2 leaves out nearly all. In Chinese almost every text may hold a name, and the automaton of its
    signs costs more than it saves: others may hold anything.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ascii_only = _true(pc.string_is_ascii(texts))
    found: dict[int, Sequence[Kind]] = dict.fromkeys(map(int, np.flatnonzero(~ascii_only)), KINDS)
    places = np.flatnonzero(ascii_only)
    forms = {kind: form for kind in KINDS if (form := necessary(kind)) is not None}
    if len(places) > _SO_FEW:
        some = texts.take(pa.array(places))
        fits = pc.match_substring_regex(some, "|".join(f"(?:{form})" for form in forms.values()))
        some, places = some.filter(fits), places[_true(fits)]
    if len(places) > _SO_FEW:
        fit = [(kind, _true(pc.match_substring_regex(some, form))) for kind, form in forms.items()]
        return found | {int(at): [kind for kind, those in fit if those[n]] for n, at in enumerate(places)}
    return found | dict.fromkeys(map(int, places), tuple(forms))


def _codes(texts: pa.Array) -> Any:
    """Which of them `_is_code`."""
    import numpy as np
    import pyarrow.compute as pc

    codes = _true(pc.match_substring_regex(texts, _MAYBE_CODE))
    for at in np.flatnonzero(codes & ~_true(pc.match_substring_regex(texts, r"\A[\x00-\x7f]*[0-9-][\x00-\x7f]*\z"))):
        codes[at] = _is_code(texts[int(at)].as_py())
    return codes


def _is_code(text: str) -> bool:
    return _CODE.fullmatch(text) is not None and not text.isspace()


def _true(fits: pa.Array) -> Any:
    return fits.to_numpy(zero_copy_only=False).astype(bool)


def look(name: str, values: Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """Rows by kind of personal data in the `values` of a column (with how often each occurs), and they without it."""
    import pyarrow as pa

    texts, seen, label = list(values), _Seen.of(name), Redactor("label")
    for at in _worth_reading(pa.array(texts, pa.string()), name):
        done = label.redact(texts[at], hint=name)
        seen.add(texts[at], done.found, values[texts[at]])
        texts[at] = done.text
    return seen.sure(), texts


def in_words(found: Mapping[str, int]) -> str:
    """Kinds and rows: "email in 2 rows"."""
    return ", ".join(f"{kind} in {rows:,} {'row' if rows == 1 else 'rows'}" for kind, rows in found.items())


def _no_column(name: str, names: Sequence[str]) -> PlatformError:
    return PlatformError(
        f"data.pii names {name!r}, which is no column of the data",
        detail=f"columns: {', '.join(names[:40])}",
        fix="name a column of the task, or one of the source that is not dropped",
        code="bad_config",
        column=name,
    )
