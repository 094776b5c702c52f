"""Texts written by an encoder and a decoder, as two ONNX graphs.

The files of ``model/``: ``tokenizer.json`` (Hugging Face tokenizers), ``seq2seq.json`` (`Seq2SeqSpec`), and

    encoder.onnx  source (int64, rows x tokens, padded on the right) -> what the decoder looks at: cross (float32,
                  layers x 2 x rows x heads x tokens x size) and, where it copies, keys (rows x tokens x width)
    decoder.onnx  token (int64, rows x 1), past (float32, layers x 2 x rows x heads x written x size), source and the
                  encoder's outputs -> scores (log-likelihoods, rows x vocabulary) and present, the longer past
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.decoding import Decoding, Drawn, sample, write
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, refused
from contracts.errors import PlatformError
from contracts.problems.generation import GenerationOutput, Written
from contracts.text_engine import WORKING_NUMBERS, runs
from contracts.texts import join_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE, TOKENIZER, ENCODER, DECODER = "seq2seq.json", "tokenizer.json", "encoder.onnx", "decoder.onnx"
_PADDING = 0.3  # share of a run's tokens that may be padding
_ROWS = 64  # of one run


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

    def _write(self, rows: Sequence[Sequence[int]]) -> list[Written]:
        spec = self.spec
        answers = [Written("") for _ in rows]
        asked = [at for at, row in enumerate(rows) if list(row) != [spec.end]]
        if not asked:
            return answers
        whole = [[*rows[at], spec.end] if self._is_cut(rows[at]) else list(rows[at]) for at in asked]
        source = np.full((len(whole), max(map(len, whole))), spec.pad, np.int64)
        for place, row in enumerate(whole):
            source[place, : len(row)] = row
        draws = [one.how for at in asked if isinstance(one := rows[at], Drawn)]
        model = _Rows(self, source)
        if draws:
            texts = sample(model, draws, spec.decoding, spec.end, spec.never)
        else:
            texts = write(model, len(whole), spec.decoding, spec.end, spec.never)
        for at, said in zip(asked, texts, strict=True):
            text = self._tokenizer.decode(said.tokens, skip_special_tokens=True).strip()
            answers[at] = Written(
                text[: self._longest],
                truncated=self._is_cut(rows[at]),
                unfinished=not said.ended or len(text) > self._longest,
            )
        return answers

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
        """None: an answer has many tokens, each with reasons of its own."""
        raise PlatformError("this model gives no reasons", detail="its answers are texts", code="not_explainable")


def load(bundle: Bundle, options: EngineOptions) -> Seq2SeqEngine:
    """See `contracts.engines.load_engine`."""
    return Seq2SeqEngine(bundle, options.threads)


ENGINE = EngineSpec(name="seq2seq", modality="text", batch_rows=64, load=load)
