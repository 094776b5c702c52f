"""Spans of texts by a graph of token tags in ONNX.

The files of ``model/``: ``tagger.json`` (`TaggerSpec`), ``model.onnx`` (input ``ids``: int64, shape (rows, tokens,
`contracts.token_hashes.width`), padded on the right with 0; output ``logits``: float32, shape (rows, tokens, tags)),
and with a list of words ``words.npy`` (`contracts.token_hashes.WordList`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, odds_of, onnx_providers, refused
from contracts.tagging import Tagged, hidden, left_of, pieces, spans, surest
from contracts.texts import join_fields
from contracts.token_hashes import Tokens, WordList, tokenise, tokenise_all, width

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE, WORD_FILE = "tagger.json", "words.npy"
_PLACE = re.compile(r"characters (\d+)-(\d+)")
_NEAREST = 64  # tokens that one explanation hides, one at a time
_AT_ONCE = 4_096  # tokens that the graph computes at a time, padding included


class TaggerSpec(Document):
    """The content of ``tagger.json``.

    Attributes:
        size: of the table of hashes.
        transitions: score of one tag (row) behind another (column).
        caution: what is added for each span, see `contracts.tagging.spans`.
        cautions: of types that have one of their own beside `caution`.
        max_characters: a text is cut here before it is read.
        max_tokens: a longer text is read in pieces.
        words: whether there is a list of words.
        around: whether hashes tell what is around a token as well, as a linear model needs it, and with 2 how the text
            is set, see `contracts.token_hashes.tokenise`.
    """

    format: Literal[1] = 1
    size: int = Field(ge=2)
    transitions: list[list[float]]
    caution: float = 0.0
    cautions: dict[str, float] = Field(default_factory=dict)
    max_characters: int = Field(ge=1)
    max_tokens: int = Field(256, ge=8)
    words: bool = False
    around: int = Field(0, ge=0, le=2)


class TaggerEngine:
    """See `contracts.engine.Engine`; the answer to a row does not depend on the others."""

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        import onnxruntime as ort

        try:
            self._spec = TaggerSpec.model_validate_json((bundle.model_path / FILE).read_bytes())
            file = bundle.model_path / WORD_FILE
            self._words = WordList(np.load(file, allow_pickle=False)) if self._spec.words else None
        except (OSError, ValueError) as err:
            raise refused(bundle, str(err)) from err
        self._transitions = np.array(self._spec.transitions, np.float64)
        signature = bundle.document.signature
        self._inputs = [item.name for item in signature.inputs if item.dtype == "string"]
        self.types: list[str] = list(signature.output.types)  # type: ignore[attr-defined]
        self._own = np.array([self._spec.cautions.get(kind, 0.0) for kind in self.types], np.float64)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(ort.get_available_providers())
        self._session = ort.InferenceSession(str(bundle.model_path / "model.onnx"), options, providers=providers)

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """The spans of each row, in the text that its fields joined make."""
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        found = self.tag([join_fields(fields, self._spec.max_characters) for fields in rows])
        answers = np.empty(len(found), dtype=object)
        answers[:] = found
        return answers

    def tag(self, texts: Sequence[str]) -> list[list[Tagged]]:
        """The spans of each text."""
        read = tokenise_all(texts, self._spec.size, self._words, self._spec.around)
        parts = [
            (row, part)
            for row, tokens in enumerate(read)
            for part in pieces(texts[row], tokens.places, self._spec.max_tokens)
            if part.stop > part.start
        ]
        found: list[list[Tagged]] = [[] for _ in texts]
        for (row, part), logits in zip(parts, self._logits(read, parts), strict=True):
            found[row] += spans(
                logits, read[row].places[part], self.types, self._transitions, self._spec.caution, self._own
            )
        return found

    def _logits(self, read: Sequence[Tokens], parts: Sequence[tuple[int, slice]]) -> list[NDArray[np.float32]]:
        """Of each part, those of similar length together."""
        sizes = [part.stop - part.start for _, part in parts]
        order = sorted(range(len(parts)), key=sizes.__getitem__)
        found: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(parts)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * sizes[order[end]] <= _AT_ONCE:
                end += 1
            ids = np.zeros((end - start, sizes[order[end - 1]], width(self._words, self._spec.around)), np.int64)
            for at, chosen in enumerate(order[start:end]):
                row, part = parts[chosen]
                ids[at, : sizes[chosen]] = read[row].ids[part]
            (logits,) = self._session.run(["logits"], {"ids": ids})
            for at, chosen in enumerate(order[start:end]):
                found[chosen] = logits[at, : sizes[chosen]]
            start = end
        return found

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What hiding a token takes from the log-odds of the row's surest span (`contracts.tagging.left_of`).

        Reasons are named by their place in the text, ``characters 12-14``, with the token as value. Of a long text the
        piece with the span is looked at, and of it the tokens that are nearest. None where no span is found.
        """
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        texts = [join_fields(fields, self._spec.max_characters) for fields in rows]
        return [self._reasons(text, surest(found), top) for text, found in zip(texts, self.tag(texts), strict=True)]

    def _reasons(self, text: str, span: Tagged | None, top: int) -> list[Reason]:
        if span is None:
            return []
        places = tokenise(text, self._spec.size).places
        parts = (places[part] for part in pieces(text, places, self._spec.max_tokens))
        near = next(part for part in parts if part[-1, 1] >= span.end)
        first, last = int(near[0, 0]), int(near[-1, 1])
        apart = np.maximum(near[:, 0] - span.end, span.start - near[:, 1])
        near = near[np.sort(np.argsort(apart, kind="stable")[:_NEAREST])]
        without = [hidden(text, start, end)[first:last] for start, end in near.tolist()]
        moved = span._replace(start=span.start - first, end=span.end - first)
        scores = odds_of(np.array([left_of(moved, found) for found in self.tag([text[first:last], *without])]))
        lost = scores[0] - scores[1:]
        return [
            Reason(
                feature=f"characters {near[at, 0]}-{near[at, 1]}",  # which `place_of` reads
                value=text[near[at, 0] : near[at, 1]],
                contribution=float(lost[at]),
            )
            for at in np.argsort(-np.abs(lost), kind="stable")[:top]
        ]


def place_of(feature: str) -> tuple[int, int]:
    """Where in a text the token begins and ends that a reason names.

    Raises:
        ValueError: it names none.
    """
    found = _PLACE.fullmatch(feature)
    if found is None:
        raise ValueError(f"{feature!r} names no place in a text")
    return int(found[1]), int(found[2])


def load(bundle: Bundle, options: EngineOptions) -> TaggerEngine:
    """See `contracts.engines.load_engine`."""
    return TaggerEngine(bundle, options.threads)


ENGINE = EngineSpec(name="tagger", modality="text", extra="services", batch_rows=64, load=load)
