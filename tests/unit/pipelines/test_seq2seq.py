"""Recipe `seq2seq`: what is learned is what is served, and input that is odd is answered or refused with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.decoding import Decoding
from contracts.engines.seq2seq import FILE, Seq2SeqSpec
from contracts.errors import PlatformError
from contracts.problems import get_problem
from contracts.problems.generation import GenerationOutput, Written
from pipelines.tasks import get_task
from pipelines.tasks.translation.simulator import pairs
from services.problems.generation import SERVING
from tests.chain import Chain

ODD = ["", "   ", "买 books 和 😀🏳️‍🌈 at 家!", "half \ud83d a character", "x" * 5_000, "新 " * 900, "买书 " * 60]
SMALL = {
    "sample.sentences": 300,
    "model.width": 32,
    "model.heads": 2,
    "model.inner": 32,
    "text.max_tokens": 40,
    "text.max_characters": 400,
    "text.vocabulary": 700,
    "decoding.max_tokens": 12,
    "training.epochs": 1,
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(task="translation", home=tmp_path_factory.mktemp("translation"), overrides=SMALL)
    made.dataset()
    made.candidate()
    return made


def engine(chain: Chain, **changes: Any) -> Any:
    """The engine of the candidate, with other settings of its decoding."""
    from contracts.engines import load_engine
    from pipelines.evaluation.scoring import provisional

    folder = chain.path("candidate")
    fields = json.loads((folder / "candidate.json").read_text())
    if changes:
        other = chain.home / f"changed-{abs(hash(str(changes)))}"
        shutil.copytree(folder, other, dirs_exist_ok=True)
        folder = other
        file = folder / "model" / FILE
        spec = Seq2SeqSpec.model_validate_json(file.read_bytes())
        file.write_text(spec.model_copy(update={"decoding": Decoding(**changes)}).model_dump_json())
    kept = ("name", "task", "recipe", "modality", "engine", "signature", "lineage")
    return load_engine(provisional(folder, {name: fields[name] for name in kept}))


def answered(loaded: Any, texts: list[str]) -> list[Written]:
    found: list[Written] = loaded.predict({"source": np.array(texts, dtype=object)}).tolist()
    return found


def test_odd_sources_have_answers_and_what_was_cut_is_said(chain: Chain) -> None:
    loaded = engine(chain)
    said = answered(loaded, [*ODD, "Anna buys a book."])
    problem, output = get_problem("generation"), GenerationOutput(max_characters=10_000, says_cut=True)
    assert problem.wrong(output, np.array(said, dtype=object), len(said)) == ""
    assert said[0] == said[1] == ""
    assert [text.truncated for text in said] == [False, False, False, False, True, True, True, False]
    documents = problem.documents(output, None, np.array(said, dtype=object), said)
    assert documents[4]["truncated"] is True
    assert [problem.answer_model(output).model_validate(one).model_dump() for one in documents] == documents
    assert [tensor.name for tensor in problem.tensors(output)] == ["text", "truncated", "unfinished"]
    assert problem.values(output, "truncated", None, said) == [text.truncated for text in said]
    assert SERVING.record(None, said, 4)["truncated"] is True
    assert "truncated" not in SERVING.record(None, said, 0)
    assert problem.documents(GenerationOutput(max_characters=9), None, None, ["a"]) == [{"text": "a"}]


def test_an_answer_rests_on_what_makes_it_likely(chain: Chain) -> None:
    from contracts.engines.seq2seq import parts_of, without
    from pipelines.evaluation.occlusion import of_written

    loaded, text = engine(chain), "Anna buys a book. The river is long. Tom sees the bird."
    columns = {"source": np.array([text, "", "One word?"], dtype=object)}
    found, none, words = loaded.explain(columns, 9)
    answer = loaded.answer(text)
    assert loaded._tokenizer.decode(answer, skip_special_tokens=True).strip() == answered(loaded, [text])[0]
    assert {one.feature for one in found} == {"Anna buys a book.", "The river is long.", "Tom sees the bird."}
    assert (none, {one.feature for one in words}) == ([], {"One", "word"})

    def alone(source: str) -> float:
        model = loaded._begin([loaded._tokenise([source])])
        scores, total = model.begin(), 0.0
        for token in answer:
            total += float(scores[0, token])
            scores = model.step(np.array([token]), None)
        return total

    for one in found:
        start = text.index(one.feature)
        rest = without(text, [(start, start + len(one.feature))])
        assert "  " not in rest
        assert one.contribution == pytest.approx(alone(text) - alone(rest), abs=1e-3)
    assert [abs(one.contribution) for one in found] == sorted((abs(one.contribution) for one in found), reverse=True)
    assert loaded.explain(columns, 2)[0] == found[:2]
    assert [text[start:end] for start, end in parts_of(text)][1] == "The river is long."
    assert len(parts_of("word " * 200)) <= 64
    assert [*map(len, (parts_of("我爱你。"), parts_of("")))] == [3, 0]
    told = of_written(loaded, columns, np.random.default_rng(0))
    assert told is not None
    assert told["rows"] == 2
    assert told["above_random"] > 0
    assert told["removed"]["reasons"] > told["removed"]["random"]
    measured = chain.evaluation()["explanations"]
    assert measured["above_random"] > 0
    assert measured["removed"]["unit"] == "log-likelihood of a token of the answer"


def test_reasons_of_a_long_source_are_of_what_is_read(chain: Chain) -> None:
    loaded = engine(chain)
    long = "Anna buys a book. " * 60
    read = loaded.read([long])
    assert long.startswith(read)
    assert 0 < len(read) < 400
    assert len(loaded._tokenise([read])) <= loaded.spec.window
    assert loaded.read(["Anna."]) == "Anna."
    assert {one.feature for one in loaded.explain({"source": np.array([long], dtype=object)}, 40)[0]} <= {
        "Anna buys a book.",
        read[read.rindex(".") + 1 :].strip(),
    }


def test_weights_of_8_bits_are_served_where_they_write_as_well(chain: Chain) -> None:
    fields = json.loads((chain.path("candidate") / "candidate.json").read_text())
    [choice] = [one for one in chain.evaluation()["choices"] if "int8" in one["metric"]]
    assert choice["passed"] is (fields["parameters"]["form"] == "int8")
    import onnx
    import onnxruntime as ort
    from onnx import helper, numpy_helper

    from pipelines.training.quantise import quantise_weights

    drawn = np.random.default_rng(0)
    table, weights = (drawn.normal(size=size).astype(np.float32) for size in ((60, 50), (50, 70)))
    nodes = [helper.make_node("Gather", ["t", "ids"], ["g"]), helper.make_node("MatMul", ["g", "w"], ["y"])]
    floats, ids = onnx.TensorProto.FLOAT, helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", "m"])
    made = helper.make_graph(
        nodes, "g", [ids], [helper.make_tensor_value_info("y", floats, ["n", "m", 70])],
        [numpy_helper.from_array(table, "t"), numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    file = chain.home / "exact.onnx"
    file.write_bytes(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    quantise_weights(file, chain.home / "int8.onnx")
    rows = drawn.integers(0, 60, (4, 3))
    said = [ort.InferenceSession(str(one)).run(None, {"ids": rows})[0] for one in (file, chain.home / "int8.onnx")]
    assert 0 < np.abs(said[1] - said[0]).max() < 0.02 * np.abs(said[0]).max()
    assert (chain.home / "int8.onnx").stat().st_size < 0.4 * file.stat().st_size


def test_a_source_of_exactly_the_window_is_read_whole(chain: Chain) -> None:
    loaded = engine(chain)
    window = loaded.spec.window
    texts = ["买" * size for size in range(1, window + 2)]
    lengths = [len(row) for row in loaded.tokenise({"source": np.array(texts, dtype=object)})]
    assert max(lengths) <= window
    answered(loaded, texts)  # places beyond the window are in no table
    whole = [row[-1] == loaded.spec.end for row in loaded.tokenise({"source": np.array(texts, dtype=object)})]
    assert whole == sorted(whole, reverse=True)
    assert whole.count(True) == sum(len(loaded._tokenizer.encode(text).ids) <= window for text in texts)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_does_not_depend_on_the_rows_beside_it(chain: Chain, beams: int) -> None:
    loaded = engine(chain, beams=beams, max_tokens=9, no_repeat=3)
    texts = [source for _, source, _ in pairs(200, 99)[:12]] + ODD
    together = answered(loaded, texts)
    assert [answered(loaded, [text])[0] for text in texts] == together
    assert all(len(loaded._tokenizer.encode(text).ids) <= 30 for text in together)
    lengths = [len(row) for row in loaded.tokenise({"source": np.array(texts, dtype=object)})]
    assert loaded.padded(lengths) >= sum(lengths)


def test_the_graphs_say_what_the_library_generates(tmp_path: Path) -> None:
    """Weights of a folder, by transformers' own greedy search and by the engine."""
    torch = pytest.importorskip("torch")
    from contracts.decoding import write
    from contracts.engines.seq2seq import _Rows
    from pipelines.training import seq2seq
    from pipelines.training.seq2seq_graph import write_graphs

    torch.manual_seed(3)
    texts = [text for _, *both in pairs(200, 1) for text in both]
    tokenizer = seq2seq.train_byte_pairs(texts, vocabulary=500, min_frequency=1)
    for text in [*texts[:20], "né 😀 新…\n\ttab"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    size: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "inner": 24, "longest": 64, "dropout": 0.0}
    made = seq2seq.new_model(vocabulary=tokenizer.get_vocab_size(), **size)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    made.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model, found = seq2seq.pretrained_model(tmp_path, 0.0)
    start, end, pad = seq2seq.marks_of(found, model)
    assert seq2seq.decoder_tokens(start, [7, 8, end]) == [start[0], 7, 8]
    write_graphs(seq2seq.Network(model.eval(), copies=False), start, tmp_path)
    rows = [found.encode(text).ids for text in texts[:6]]
    source = torch.full((6, max(map(len, rows))), pad)
    for at, row in enumerate(rows):
        source[at, : len(row)] = torch.tensor(row)
    expected = model.generate(
        source, attention_mask=(source != pad).long(), max_new_tokens=9, do_sample=False, num_beams=1, use_cache=True
    )
    given = served(tmp_path, model, start, end, pad)
    said = write(_Rows(given, source.numpy()), 6, Decoding(max_tokens=9, min_tokens=0), end)
    for one, wanted in zip(said, expected[:, 1:].tolist(), strict=True):
        assert one.tokens == (wanted[: wanted.index(end)] if end in wanted else wanted)


def test_what_is_whole_is_one_token_and_digits_and_chinese_characters_are_by_themselves() -> None:
    pytest.importorskip("torch")
    from pipelines.training.seq2seq import train_byte_pairs

    marks = ["#Person1#", "#Person2#"]
    texts = [f"{one}: a (b) 12新书\n{other}: c" for one in marks for other in marks] * 3
    split = ["#", "Person", "1", "#", "\u0120", "1", "2", "æĸ°", "ä¹¦", "Ċ", "#", "Person", "2", "#:", "[END]"]
    joined = ["#Person1#", "\u0120", "1", "2", "æĸ°", "ä¹¦", "Ċ#Person2#:", "[END]"]
    for whole, expected in (([], split), ([*marks, *(f"\n{one}:" for one in marks)], joined)):
        tokenizer = train_byte_pairs(texts, vocabulary=600, min_frequency=1, whole=whole)
        assert tokenizer.encode("#Person1# 12新书\n#Person2#:").tokens == expected
        for text in (*texts, "新#Person1#5 #Person1#", "a(+)|#Person1 #"):
            assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_graph_that_copies_says_what_was_trained(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from contracts.engines.seq2seq import _Rows
    from pipelines.training.seq2seq import Network, new_model
    from pipelines.training.seq2seq_graph import write_graphs

    torch.manual_seed(4)
    network = Network(
        new_model(vocabulary=50, layers=2, width=16, heads=2, inner=24, longest=20, dropout=0.1), copies=True
    )
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    write_graphs(network, (2,), tmp_path)
    source, wanted = torch.randint(4, 50, (3, 9)), torch.randint(4, 50, (3, 5))
    source[1, 4:] = 0
    wanted[0, :4] = source[0, :4]  # a copy that goes on
    given = torch.cat([torch.full((3, 1), 2), wanted[:, :-1]], dim=1)
    with torch.no_grad():
        expected = network(source, given, wanted)[0].numpy()
    rows = _Rows(served(tmp_path, None, (2,), 3, 0), source.numpy())
    scores = [rows.begin(), *(rows.step(wanted[:, at].numpy(), None) for at in range(4))]
    found = np.stack([one[np.arange(3), wanted[:, at].numpy()] for at, one in enumerate(scores)], axis=1)
    assert found == pytest.approx(expected, abs=1e-4)
    assert all(np.exp(one).sum(axis=1) == pytest.approx(1, abs=1e-4) for one in scores)
    with torch.no_grad():
        network.follows.fill_(2.0)
        copied = network.copied(torch.zeros(3, 1, 16), torch.zeros(3, 9, 16), source, source[:, :1])[0]
    assert float(copied[0, 0, 1]) > 5 * float(copied[0, 0, 8])


def served(
    folder: Path, model: Any, start: tuple[int, ...], end: int, pad: int, layers: int = 2, heads: int = 2, size: int = 8
) -> Any:
    import onnxruntime as ort

    shape: dict[str, Any] = {"layers": layers, "heads": heads, "size": size}

    class Loaded:
        spec = Seq2SeqSpec(max_characters=100, window=64, start=start, end=end, pad=pad, **shape, decoding=Decoding())
        encoder = ort.InferenceSession(str(folder / "encoder.onnx"))
        decoder = ort.InferenceSession(str(folder / "decoder.onnx"))

    return Loaded()


def test_weights_that_cannot_be_taken_are_refused_with_their_reason(tmp_path: Path) -> None:
    from pipelines.training.seq2seq import pretrained_model

    with pytest.raises(PlatformError, match=r"config\.json cannot be read"):
        pretrained_model(tmp_path, 0.1)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(PlatformError, match="it is of architecture 'bert'; bart, marian, t5, mt5 can be served"):
        pretrained_model(tmp_path, 0.1)
    (tmp_path / "config.json").write_text('{"model_type": "bart"}')
    with pytest.raises(PlatformError, match=r"model\.safetensors is not there"):
        pretrained_model(tmp_path, 0.1)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    chain = Chain(task="translation", home=tmp_path, overrides=SMALL | {"training.learning_rate": 1e30})
    chain.dataset()
    with pytest.raises(PlatformError, match="training diverged in epoch 1") as caught:
        chain.candidate()
    assert "training.learning_rate" in (caught.value.fix or "")


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    chain = Chain(task="translation", home=tmp_path, overrides=SMALL | {"model.heads": 3})
    chain.dataset()
    with pytest.raises(PlatformError, match=r"model\.width cannot be shared by the heads"):
        chain.candidate()


def test_sentences_of_the_sample_are_different_and_a_combination_is_in_one_part_only(chain: Chain) -> None:
    import pandas as pd

    rows = pairs(300, 7)
    assert len({source for _, source, _ in rows}) == len(rows) == 300
    assert pairs(300, 7) == rows != pairs(300, 8)
    assert 100 < sum(source.isascii() for _, source, _ in rows) < 200
    parts = {
        part: {name.partition("/")[0] for name in pd.read_parquet(chain.path("dataset") / f"{part}.parquet")["id"]}
        for part in ("train", "valid", "test")
    }
    assert all(parts.values())
    assert not parts["test"] & (parts["train"] | parts["valid"])
    assert get_task("translation").title
