"""Recipe `seq2seq` with a T5 or an mT5: the graphs say what the library says, and its pieces are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.decoding import Decoding, Sampling
from contracts.errors import PlatformError
from tests.chain import Chain
from tests.unit.pipelines.test_seq2seq import SMALL, answered, engine, served

PIECES = 40


def pieces(folder: Path, **changes: Any) -> Path:
    """A spiece.model in the form of T5's: padding, the end, the unknown, and `PIECES` in all."""
    from transformers.convert_slow_tokenizer import import_protobuf

    described = import_protobuf()
    made = described.ModelProto()
    for piece, score, kind in [
        ("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("\u2581the", -1.0, 1), ("\u2581", -2.0, 1),
        ("river", -3.0, 1), *((letter, -5.0, 1) for letter in "abcdefghijklmnopqrstuvwxyz.,!?\u65b0\u6cb3"),
        *((f"<0x{byte:02X}>", -9.0, 6) for byte in (0xC3, 0xA9)),
    ]:  # fmt: skip
        made.pieces.add(piece=piece, score=score, type=kind)
    trained = made.trainer_spec
    trained.model_type, trained.unk_id, trained.eos_id, trained.pad_id = changes.get("model_type", 1), 2, 1, 0
    trained.unk_piece, trained.eos_piece, trained.pad_piece = "<unk>", "</s>", "<pad>"
    trained.byte_fallback = True
    made.normalizer_spec.add_dummy_prefix = made.normalizer_spec.remove_extra_whitespaces = True
    assert len(made.pieces) == PIECES
    file = folder / "spiece.model"
    file.write_bytes(made.SerializeToString())
    return file


def t5(folder: Path, kind: str, activation: str, tied: bool) -> Any:
    """A T5 with random weights in `folder`, as transformers saves it, and its spiece.model."""
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(5)
    pieces(folder)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=PIECES + 4, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=12, feed_forward_proj=activation,
        decoder_start_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    made = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if not tied:
        made.lm_head.weight = torch.nn.Parameter(torch.empty(PIECES + 4, 16))
    for name, weight in made.named_parameters():
        torch.nn.init.normal_(weight, std=4.0 if "relative" in name else 0.6)
    made.save_pretrained(folder)
    return made


@pytest.mark.parametrize(("kind", "activation", "tied"), [("T5", "relu", True), ("T5", "gated-gelu", False)])
def test_the_graphs_of_a_t5_say_what_the_library_generates(
    tmp_path: Path, kind: str, activation: str, tied: bool
) -> None:
    """Greedy and by beams; sources and answers are longer than the distance beyond which places are alike."""
    torch = pytest.importorskip("torch")
    from contracts.decoding import write
    from contracts.engines.seq2seq import _Rows
    from pipelines.training.seq2seq import Network, marks_of, pretrained_model
    from pipelines.training.seq2seq_graph import write_graphs

    t5(tmp_path, kind, activation, tied)
    model, found = pretrained_model(tmp_path, 0.3)
    assert (model.lm_head.weight is model.shared.weight) is tied
    assert model.config.scale_decoder_outputs is tied
    assert model.decoder.block[0].layer[0].SelfAttention.dropout == 0.3
    start, end, pad = marks_of(found, model)
    assert (start, end, pad) == ((0,), 1, 0)
    write_graphs(Network(model.eval(), copies=False), start, tmp_path)
    rows = [[*torch.randint(3, PIECES, (length,)).tolist(), end] for length in (2, 8, 9, 40)]
    source = torch.full((len(rows), 41), pad)
    for at, row in enumerate(rows):
        source[at, : len(row)] = torch.tensor(row)
    given = served(tmp_path, model, start, end, pad, layers=3, heads=4, size=6)
    for beams, least in ((1, 0), (3, 16)):  # where a limit cuts beams short, the library may prefer a text without end
        how = {"max_new_tokens": 16, "min_new_tokens": least, "do_sample": False, "num_beams": beams}
        mask = (source != pad).long()
        expected = model.generate(source, attention_mask=mask, use_cache=False, **how)[:, 1:].tolist()
        decoding = Decoding(max_tokens=16, min_tokens=least, beams=beams)
        said = write(_Rows(given, source.numpy()), len(rows), decoding, end)
        assert max(len(one.tokens) for one in said) > 12
        for one, wanted in zip(said, expected, strict=True):
            assert one.tokens == wanted[: wanted.index(end) if end in wanted else len(wanted)]


def test_an_mt5_is_trained_and_served_with_its_prefix(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    t5(weights, "MT5", "gated-gelu", False)
    settings = {
        "sample.sentences": 200,
        "model.pretrained": str(weights),
        "model.prefix": "river, ",
        "decoding.temperature": 0.7,
        "decoding.seed": 3,
        "model.int8": False,
    }
    made = Chain(task="translation", home=tmp_path, overrides=SMALL | settings)
    made.dataset()
    made.candidate()
    loaded = engine(made)
    spec = loaded.spec
    assert (spec.layers, spec.heads, spec.size, spec.window) == (3, 4, 6, 40)
    assert loaded.sampling == Sampling(temperature=0.7, seed=3)
    assert {0, 2, *range(PIECES, PIECES + 4)} <= set(spec.never)  # padding, the unknown, what fills up the table
    river, the = 5, 3
    ids = loaded.tokenise({"source": np.array(["the river", "  "], dtype=object)})
    assert ids == [[4, river, PIECES - 8 + 1, the, 4, river, spec.end], [spec.end]]
    assert answered(loaded, ["the river", ""])[1] == ""


def test_a_file_of_sentencepiece_is_read_or_refused_with_its_reason(tmp_path: Path) -> None:
    from pipelines.training.seq2seq import sentence_pieces

    found = sentence_pieces(pieces(tmp_path))
    assert found.encode("  the   river \u00e9\u65b0 ").ids[:3] == [3, 4, 5]
    ids = found.encode("the river \u00e9\u65b0").ids
    assert found.decode(ids) == "the river \u00e9\u65b0"
    assert found.encode("\u00f1").ids[-2:] == [2, 1]  # no bytes for it
    with pytest.raises(PlatformError, match="has no pieces of kind unigram"):
        sentence_pieces(pieces(tmp_path, model_type=2))
    (tmp_path / "spiece.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(PlatformError, match=r"spiece\.model cannot be read"):
        sentence_pieces(tmp_path / "spiece.model")
