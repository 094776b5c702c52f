"""Texts written by an encoder and a decoder, as two ONNX graphs.

The files of ``model/``: ``tokenizer.json`` (Hugging Face tokenizers), ``seq2seq.json`` (`Seq2SeqSpec`), and

    encoder.onnx  source (int64, rows x tokens, padded on the right) -> what the decoder looks at: cross (float32,
                  layers x 2 x rows x heads x tokens x size) and, where it copies, keys (rows x tokens x width)
    decoder.onnx  token (int64, rows x 1), past (float32, layers x 2 x rows x heads x written x size), source and the
                  encoder's outputs -> scores (log-likelihoods, rows x vocabulary) and present, the longer past
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.decoding import Decoding, Drawn, Said, sample, write
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, refused
from contracts.passages import passages
from contracts.problems.generation import GenerationOutput, Written
from contracts.text_engine import WORKING_NUMBERS, runs
from contracts.texts import join_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE, TOKENIZER, ENCODER, DECODER = "seq2seq.json", "tokenizer.json", "encoder.onnx", "decoder.onnx"
_PADDING = 0.3  # share of a run's tokens that may be padding
_ROWS = 64  # of one run
OCCLUSIONS = 64  # variants of a source that one explanation may score
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+(?:['’-]\w+)*")


class Seq2SeqSpec(Document):
    """The content of ``seq2seq.json``.

    Attributes:
        max_characters: a source is cut here before it is tokenised, so that a huge one costs no more.
        prefix: stands before every source that has a text, and is not counted among its characters.
        window: tokens of a source, with the mark of its end; what is beyond is not read, and the answer says so.
        start: tokens that every text begins with, in the decoder and not in the answer.
        end, pad: the tokens of the end and of padding.  never: tokens that no answer has.
        layers, heads, size: of the decoder's past; size is that of one head.
        copies: whether the graphs have ``keys``.
    """

    format: Literal[1] = 1
    max_characters: int = Field(ge=1)
    prefix: str = ""
    window: int = Field(ge=2)
    start: tuple[int, ...] = Field(min_length=1)
    end: int
    pad: int
    never: tuple[int, ...] = ()
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    size: int = Field(ge=1)
    copies: bool = False
    decoding: Decoding


class _Rows:
    """See `contracts.decoding.Writer`: some sources, what the encoder made of them, and the decoder's past."""

    def __init__(self, engine: Seq2SeqEngine, source: NDArray[np.int64]) -> None:
        self._decoder, self._spec = engine.decoder, engine.spec
        found = engine.encoder.run(None, {"source": source})
        names = [one.name for one in engine.encoder.get_outputs()]
        self._seen: dict[str, NDArray[Any]] = {"source": source, **dict(zip(names, found, strict=True))}
        spec = self._spec
        self._past = np.zeros((spec.layers, 2, len(source), spec.heads, 0, spec.size), np.float32)
        self._source_of = np.arange(len(source))

    def begin(self) -> NDArray[np.float32]:
        for token in self._spec.start:
            scores = self._run(np.full(self._past.shape[2], token, np.int64))
        return scores

    def step(self, chosen: NDArray[np.int64], behind: NDArray[np.int64] | None) -> NDArray[np.float32]:
        if behind is not None:
            self._past = np.ascontiguousarray(self._past[:, :, behind])
            source_of = self._source_of[behind]
            if not np.array_equal(source_of, self._source_of):
                self._seen = {
                    name: np.ascontiguousarray(value[:, :, behind] if name == "cross" else value[behind])
                    for name, value in self._seen.items()
                }
            self._source_of = source_of
        return self._run(chosen)

    def _run(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        given = {"token": tokens[:, None], "past": self._past, **self._seen}
        scores: NDArray[np.float32]
        scores, self._past = self._decoder.run(["scores", "present"], given)
        return scores


class Seq2SeqEngine:
    """See `contracts.engine.Engine` and `TokenEngine`. A source without text has an empty answer.

    Token ids of a source that was cut lack the mark of the end: so it is known, wherever they are carried.

    Attributes:
        sampling: what holds for the texts of `contracts.decoding.Drawn` ids, unless more is said.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        folder, document = bundle.model_path, bundle.document
        if not isinstance(document.signature.output, GenerationOutput):
            raise refused(bundle, f"engine seq2seq writes texts, its problem is {document.signature.output.problem}")
        self._longest = document.signature.output.max_characters
        try:
            self.spec = Seq2SeqSpec.model_validate_json((folder / FILE).read_bytes())
            tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        self.sampling = self.spec.decoding.sampling
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.encoder, self.decoder = (
            ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )
        self._inputs = [item.name for item in document.signature.inputs if item.dtype == "string"]

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """One text per row, of its fields joined."""
        return self.predict_ids(self.tokenise(columns))

    def tokenise(self, columns: Mapping[str, NDArray[Any]]) -> list[list[int]]:
        """The token ids of each row, at most `window`."""
        rows = list(zip(*(columns[name] for name in self._inputs), strict=True))
        return [self._tokenise(fields) for fields in rows]

    def _tokenise(self, fields: Sequence[Any]) -> list[int]:
        spec = self.spec
        text = join_fields(fields, spec.max_characters + 1)
        if not text.strip():
            return [spec.end]
        ids: list[int] = self._tokenizer.encode(spec.prefix + text[: spec.max_characters]).ids
        if len(text) <= spec.max_characters and len(ids) <= spec.window:
            return ids
        return ids[: min(len(ids), spec.window) - 1]  # which leaves a place for the mark of the end

    def predict_ids(self, rows: Sequence[Sequence[int]]) -> NDArray[np.object_]:
        """The same of token ids; the texts of `contracts.decoding.Drawn` ones are drawn by chance."""
        answers = np.empty(len(rows), dtype=object)
        drawn = [at for at, row in enumerate(rows) if isinstance(row, Drawn)]
        for places in (drawn, sorted(set(range(len(rows))).difference(drawn))):
            for run in self._runs([len(rows[at]) for at in places]):
                said = self._write([rows[places[at]] for at in run])
                for at, text in zip(run, said, strict=True):
                    answers[places[at]] = text
        return answers

    def _begin(self, rows: Sequence[Sequence[int]]) -> _Rows:
        spec = self.spec
        whole = [[*row, spec.end] if self._is_cut(row) else list(row) for row in rows]
        source = np.full((len(whole), max(map(len, whole))), spec.pad, np.int64)
        for place, row in enumerate(whole):
            source[place, : len(row)] = row
        return _Rows(self, source)

    def _write(self, rows: Sequence[Sequence[int]]) -> list[Written]:
        spec = self.spec
        answers = [Written("") for _ in rows]
        asked = [at for at, row in enumerate(rows) if list(row) != [spec.end]]
        if not asked:
            return answers
        for at, said in zip(asked, self._said([rows[at] for at in asked]), strict=True):
            text = self._tokenizer.decode(said.tokens, skip_special_tokens=True).strip()
            answers[at] = Written(
                text[: self._longest],
                truncated=self._is_cut(rows[at]),
                unfinished=not said.ended or len(text) > self._longest,
            )
        return answers

    def _said(self, rows: Sequence[Sequence[int]]) -> list[Said]:
        spec, model = self.spec, self._begin(rows)
        draws = [one.how for one in rows if isinstance(one, Drawn)]
        if draws:
            return sample(model, draws, spec.decoding, spec.end, spec.never)
        return write(model, len(rows), spec.decoding, spec.end, spec.never)

    def _is_cut(self, row: Sequence[int]) -> bool:
        return row[-1] != self.spec.end

    def padded(self, lengths: Sequence[int]) -> int:
        """Tokens of all runs that rows of these lengths are split into."""
        return sum(len(run) * max(1, *(lengths[at] for at in run)) for run in self._runs(lengths))

    def _runs(self, lengths: Sequence[int]) -> list[list[int]]:
        spec = self.spec
        width = spec.heads * spec.size
        each = 2 * spec.layers * width * spec.decoding.beams
        found = runs(
            lengths,
            per_row=each * spec.decoding.max_tokens,
            per_token=each + 4 * width,
            most=4 * WORKING_NUMBERS,
            padding=_PADDING,
        )
        return [run[at : at + _ROWS] for run in found for at in range(0, len(run), _ROWS)]

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What the likeliest answer rests on: by how much its log-likelihood falls where a part of the source is left
        out (`parts`), as the decoder is told the same answer token by token.

        A part that speaks against the answer has a contribution below 0. Parts of a long source are left out together,
        so that one answer is written, and at most `OCCLUSIONS` and one more are read again.
        """
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        return [self._reasons(self.read(fields), top) for fields in rows]

    def _reasons(self, text: str, top: int) -> list[Reason]:
        parts, answer = parts_of(text), self.answer(text)
        if not parts or not answer:
            return []
        found = self.likelihoods([text, *(without(text, [part]) for part in parts)], answer)
        lost = found[0] - found[1:]
        return [
            Reason(feature=text[parts[at][0] : parts[at][1]], value=None, contribution=round(float(lost[at]), 6))
            for at in np.argsort(-np.abs(lost), kind="stable")[:top]
        ]

    def read(self, fields: Sequence[Any]) -> str:
        """What is read of a row: its fields joined, up to where the window ends."""
        spec = self.spec
        text = join_fields(fields, spec.max_characters)
        found = self._tokenizer.encode(spec.prefix + text)
        if len(found.ids) <= spec.window:
            return text
        return text[: max(0, found.offsets[spec.window - 2][1] - len(spec.prefix))]

    def answer(self, text: str) -> list[int]:
        """The tokens of the likeliest answer, with that of its end where it came to one; none to no text."""
        ids = self._tokenise([text])
        if ids == [self.spec.end]:
            return []
        (said,) = self._said([ids])
        return [*said.tokens, self.spec.end] if said.ended else said.tokens

    def likelihoods(self, texts: Sequence[str], answer: Sequence[int]) -> NDArray[np.float64]:
        """The log-likelihood of the tokens `answer` for each source, shape (texts,)."""
        rows = [self._tokenise([text]) for text in texts]
        total = np.zeros(len(rows))
        for run in self._runs([len(row) for row in rows]):
            model = self._begin([rows[at] for at in run])
            scores = model.begin()
            for place, token in enumerate(answer):
                total[run] += scores[:, token]
                if place + 1 < len(answer):
                    scores = model.step(np.full(len(run), token, np.int64), None)
        return total


def parts_of(text: str) -> list[tuple[int, int]]:
    """Where the parts of a source begin and end that are left out one by one: its sentences, or the words of one.

    At most `OCCLUSIONS`; of more, neighbours are one.
    """
    spans, end = [], 0
    for part in passages(text, "sentence"):
        start = text.index(part, end)
        end = start + len(part)
        spans.append((start, end))
    if len(spans) < 2:
        spans = [found.span() for found in _WORD.finditer(text)]
    step = max(1, -(-len(spans) // OCCLUSIONS))
    groups = [spans[at : at + step] for at in range(0, len(spans), step)]
    return [(group[0][0], group[-1][1]) for group in groups]


def without(text: str, parts: Sequence[tuple[int, int]]) -> str:
    """A text without some of its parts; spaces that would stand side by side are one."""
    kept, at = [], 0
    for start, end in sorted(parts):
        kept.append(text[at:start])
        at = end
    return re.sub(" {2,}", " ", "".join([*kept, text[at:]])).strip()


def load(bundle: Bundle, options: EngineOptions) -> Seq2SeqEngine:
    """See `contracts.engines.load_engine`."""
    return Seq2SeqEngine(bundle, options.threads)


ENGINE = EngineSpec(name="seq2seq", modality="text", batch_rows=64, load=load)
