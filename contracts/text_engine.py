"""Text models: a tokenizer and what turns token ids into answers.

The files of ``model/``: ``tokenizer.json`` (Hugging Face tokenizers), ``text.json`` (`TextSpec`), and for engine
``onnx`` ``model.onnx`` (input ``ids``: int64, shape (rows, tokens), padded on the right; outputs: `graph_outputs`) and,
when the graph is linear in its terms, ``terms.npy`` (int32, shape (terms, longest n-gram): the token ids of each term,
padded by -1). Those of engine ``torch`` are in `contracts.engines.torch_text`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.engine import Reason, graph_outputs, refused
from contracts.errors import PlatformError
from contracts.texts import join_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNKNOWN = ("[UNK]", "<unk>")
WORKING_NUMBERS = 4_000_000  # numbers that one run of the graph may hold: 16 MB of float32
OCCLUSIONS = 64  # variants of a text that one explanation may score


class TextSpec(Document):
    """The content of ``text.json``.

    Attributes:
        max_characters: a text is cut here before it is tokenised, so that a huge one costs no more.
        max_tokens: token ids beyond this many are dropped.
        numbers_per_row, numbers_per_token: working memory of the graph, which bounds the rows run at once.
        max_padding: share of the tokens of a run that may be padding; 1 runs as many rows at once as memory allows.
        separator: between the tokens of a term, when it is shown.
        explain: ``terms`` = the graph has an output ``contributions``, exact per term; ``occlusion`` = leave one out.
        gpu_precision: of engine ``torch`` on a GPU; on a CPU it computes in fp32.
    """

    format: Literal[1] = 1
    max_characters: int
    max_tokens: int
    pad_id: int
    numbers_per_row: int
    numbers_per_token: int
    max_padding: float = 1.0
    separator: str = ""
    explain: Literal["terms", "occlusion"]
    gpu_precision: Literal["fp32", "bf16"] = "fp32"


class TextEngine(ABC):
    """Serves a text bundle; see `contracts.engine.Engine`. A subclass computes one padded run.

    Attributes:
        working_numbers: how many numbers one run may hold.
        unknown_id: the token of what the tokenizer does not know; None where it knows everything.
    """

    working_numbers = WORKING_NUMBERS

    def __init__(self, bundle: Bundle) -> None:
        folder = bundle.model_path
        try:
            self._spec = TextSpec.model_validate_json((folder / "text.json").read_bytes())
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        ids = map(self._tokenizer.token_to_id, _UNKNOWN)
        self.unknown_id = next((one for one in ids if one is not None), None)
        self._inputs = [i.name for i in bundle.document.signature.inputs if i.dtype == "string"]
        signature = bundle.document.signature
        self._problem, self._output_part = signature.problem, signature.output
        outputs = graph_outputs(signature)
        self._names, self._width = list(outputs), sum(outputs.values())

    @abstractmethod
    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Answers, shape (rows, width), of token ids; run at once, padded to the longest."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Answers, such as probabilities of shape (rows, classes), to the columns joined to one text per row."""
        return self._score(self.tokenise(columns))

    def tokenise(self, columns: Mapping[str, NDArray[Any]]) -> list[list[int]]:
        """The token ids of each row, at most `max_tokens`."""
        return [self._tokenise(text) for text in self._texts(columns)]

    def predict_ids(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """The same of token ids."""
        return self._score(rows)

    def padded(self, lengths: Sequence[int]) -> int:
        """Tokens of all runs that rows of these lengths are split into."""
        return sum(len(run) * max(1, *(lengths[at] for at in run)) for run in self._runs(lengths))

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What spoke for (or against) the predicted class, the likeliest label, or made the number larger or smaller.

        A linear graph gives the exact contribution of each term: to the logit of the class, relative to the mean of
        all classes, to that of the label, or to the number. Otherwise: what is lost when a span of tokens is left out,
        in log-odds or of the number, or how far a vector turns by it (one minus the cosine); for at most `OCCLUSIONS`
        spans per text, which bounds the cost of a text at that many predictions of it and one more.
        """
        if self._spec.explain != "terms" and self._problem.name not in _LOST:
            detail = f"those of problem {self._problem.name!r} have none"
            raise PlatformError("this model gives no reasons", detail=detail, code="not_explainable")
        return [self._explain(text, top) for text in self._texts(columns)]

    def _explain(self, text: str, top: int) -> list[Reason]:
        return self._explain_by_occlusion(text, top)

    def _texts(self, columns: Mapping[str, NDArray[Any]]) -> list[str]:
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        return [join_fields(fields, self._spec.max_characters) for fields in rows]

    def _tokenise(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids[: self._spec.max_tokens]
        return ids

    def _pad(self, rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        ids = np.full((len(rows), max(1, *map(len, rows), 1)), self._spec.pad_id, np.int64)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
        return ids

    def _score(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        result = np.empty((len(rows), self._width), np.float64)
        for chosen in self._runs([len(row) for row in rows]):
            result[chosen] = self._run([rows[at] for at in chosen])
        exact: NDArray[np.float64] = self._problem.exact(self._output_part, result)
        return exact

    def _runs(self, lengths: Sequence[int]) -> list[list[int]]:
        spec = self._spec
        return runs(
            lengths,
            per_row=spec.numbers_per_row,
            per_token=spec.numbers_per_token,
            most=self.working_numbers,
            padding=spec.max_padding,
        )

    def _explain_by_occlusion(self, text: str, top: int) -> list[Reason]:
        encoding = self._tokenizer.encode(text)
        ids, offsets = encoding.ids[: self._spec.max_tokens], encoding.offsets
        words = _words(encoding.word_ids[: self._spec.max_tokens])
        if not words:
            return []
        step = -(-len(words) // OCCLUSIONS)
        groups = [words[start : start + step] for start in range(0, len(words), step)]
        spans = [(group[0][0], group[-1][-1]) for group in groups]  # first and last token
        without = (ids[:first] + ids[last + 1 :] for first, last in spans)
        lost = _LOST[self._problem.name](self._score([ids, *without]))
        return [
            Reason(
                feature=text[offsets[spans[at][0]][0] : offsets[spans[at][1]][1]],
                value=None,
                contribution=float(lost[at]),
            )
            for at in np.argsort(-np.abs(lost), kind="stable")[:top]
        ]


def _lost_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the likeliest class or label."""
    likely = np.clip(scores[:, int(scores[0].argmax())], 1e-9, 1 - 1e-9)
    odds = np.log(likely / (1 - likely))
    return np.asarray(odds[0] - odds[1:])


def _lost_number(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(scores[0, 0] - scores[1:, 0])


def cosines(vectors: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of each vector with the one of its row in `like`; 0 with a vector without length."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(like, axis=1)
    return np.asarray((vectors * like).sum(axis=1) / np.maximum(lengths, 1e-12))


# By problem, of a text's scores and those of it without each span: what is lost.
_LOST: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "classification": _lost_odds,
    "multilabel": _lost_odds,
    "regression": _lost_number,
    "embedding": lambda vectors: 1 - cosines(vectors[1:], np.broadcast_to(vectors[0], vectors[1:].shape)),
}


def runs(lengths: Sequence[int], *, per_row: int, per_token: int, most: int, padding: float) -> list[list[int]]:
    """Rows that are run together, long ones first: bounded by working memory and by the share of padding.

    Args:
        per_row, per_token: numbers that a run holds of each.  most: numbers that it may hold.
        padding: share of the tokens of a run that may be padding.
    """
    found: list[list[int]] = []
    run: list[int] = []
    longest = tokens = 0
    for at in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        grown = (len(run) + 1) * longest
        memory = (len(run) + 1) * (per_row + per_token * longest)
        wasted = grown - tokens - lengths[at]
        if run and (memory > most or wasted > padding * grown):
            found.append(run)
            run = []
        if not run:
            longest, tokens = lengths[at], 0
        run.append(at)
        tokens += lengths[at]
    return [*found, run] if run else found


def _words(numbers: Sequence[int | None]) -> list[list[int]]:
    """Positions of the tokens of each word, which may be several; marks of beginning and end belong to none."""
    words: list[list[int]] = []
    for at, number in enumerate(numbers):
        if number is None:
            continue
        if words and numbers[words[-1][-1]] == number:
            words[-1].append(at)
        else:
            words.append([at])
    return words
