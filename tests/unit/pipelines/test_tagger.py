"""Texts with spans: how they are read, split, changed for training, and learned."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from contracts.tagging import tags_of
from pipelines.data.chunks import TextFormat
from pipelines.data.sources import column_names, read_chunks
from pipelines.evaluation.tagging import counted, ratios
from pipelines.settings import parse_setting
from pipelines.tasks import get_task, recipe_config
from pipelines.training.tagger import Mentions, Texts, encode
from tests.problem_bundles import publish

TAGGED = TextFormat(tagged=True)


def rows(path: Path) -> list[tuple[str, list[list[Any]]]]:
    names = column_names(path, TAGGED)
    assert names == ["text", "spans"]
    table = next(iter(read_chunks(path, names, TAGGED))).table
    return [
        (text, json.loads(spans))
        for text, spans in zip(*(table.column(name).to_pylist() for name in names), strict=True)
    ]


def test_a_token_and_its_tag_on_each_line_are_a_text_with_spans(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "王\tB-PER\n明\tI-PER\n在\tO\n北\tB-LOC\n京\tI-LOC\n\n\nAnna NNP B-PER\nBerg NNP I-PER\n. . O\n"
    )
    assert rows(tmp_path / "a.txt") == [
        ("王明在北京", [[0, 2, "PER"], [3, 5, "LOC"]]),
        ("Anna Berg .", [[0, 9, "PER"]]),
    ]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B-PER", "B-PER", "O"], [[0, 1, "PER"], [1, 2, "PER"]]),
        (["I-PER", "I-PER", "I-LOC"], [[0, 2, "PER"], [2, 3, "LOC"]]),
        (["B-PER", "E-PER", "S-PER"], [[0, 2, "PER"], [2, 3, "PER"]]),
        (["O", "O", "O"], []),
    ],
)
def test_forms_of_tags(tmp_path: Path, tags: list[str], spans: list[list[Any]]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"{sign}\t{tag}" for sign, tag in zip("甲乙丙", tags, strict=True)))
    assert rows(tmp_path / "a.txt") == [("甲乙丙", spans)]


def test_a_line_without_a_tag_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("王\tB-PER\n明\n")
    with pytest.raises(PlatformError, match=r"a\.txt: line 2 has no tag"):
        rows(tmp_path / "a.txt")


def frame(*given: tuple[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"t{at}" for at in range(len(given))],
            "text": [one for one, _ in given],
            "spans": [two for _, two in given],
        }
    )


def split(given: pd.DataFrame) -> dict[str, pd.DataFrame]:
    task = get_task("names")
    return task.split(given, recipe_config(task, "tagger"))


def test_spans_that_cannot_be_are_refused_with_their_row() -> None:
    good = [(f"Ann {at} met Bo", '[[0, 3, "PER"]]') for at in range(30)]
    assert set(split(frame(*good))) == {"train", "valid", "test"}
    with pytest.raises(PlatformError, match="row 31: spans is no list of spans") as caught:
        split(frame(*good, ("Secret Name", "Secret")))
    assert "Secret" not in str(caught.value)
    with pytest.raises(PlatformError, match="row 't30': a span ends at 99, and the text has 4 characters"):
        split(frame(*good, ("Anna", '[[0, 99, "PER"]]')))
    with pytest.raises(PlatformError, match="no text of the training part has a span"):
        split(frame(*((text, None) for text, _ in good)))


def test_tokens_get_the_tags_of_the_span_that_they_begin_in() -> None:
    kinds = ["LOC", "PER"]
    tags = tags_of(kinds)
    _, found = encode("Anna Berg, Rome!", [(0, 9, "PER"), (11, 15, "LOC")], kinds, 64)
    assert [tags[one] for one in found] == ["B-PER", "I-PER", "O", "B-LOC", "O"]
    _, found = encode("Anna Berg Rome", [(0, 14, "LOC"), (0, 4, "PER")], kinds, 64)
    assert [tags[one] for one in found] == ["B-LOC", "I-LOC", "I-LOC"]


def test_replaced_spans_are_of_their_type_and_stand_where_they_are_said_to() -> None:
    texts = ["王小明在北京", "Anna Berg is in Rome", "李四来了"]
    data = Texts(texts=texts, spans=[[(0, 3, "PER"), (4, 6, "LOC")], [(0, 9, "PER"), (16, 20, "LOC")], [(0, 2, "PER")]])
    mentions, rng = Mentions(data), np.random.default_rng(1)
    places = {"北京", "Rome"}
    for _ in range(50):
        text, labels = mentions.replaced(texts[1], data.spans[1], 1.0, rng)
        (start, end, person), (begin, stop, place) = labels
        assert (person, place) == ("PER", "LOC")
        assert text[begin:stop] in places | {"北京"}
        assert text[end:begin] == " is in "
        assert text[start:end] in {"王小明", "Anna Berg", "李四"}
    made = {mentions.replaced("王小明来", [(0, 3, "PER")], 1.0, rng)[0] for _ in range(200)}
    assert made == {"王小明来", "Anna Berg来", "李四来"}  # one of three characters is put together of itself alone
    pair = Mentions(Texts(texts=["王小明", "李大海"], spans=[[(0, 3, "PER")], [(0, 3, "PER")]]))
    assert "王大明" in {pair.replaced("王小明", [(0, 3, "PER")], 1.0, rng)[0] for _ in range(200)}
    assert mentions.replaced(texts[0], data.spans[0], 0.0, rng) == (texts[0], data.spans[0])


def test_a_list_is_of_short_values_of_one_type_that_stand_where_they_are_said_to() -> None:
    texts = ["王小明在北京", "李四来了", "Anna Berg is in Rome", "a name that is far too long for a list"]
    spans = [[(0, 3, "PER"), (4, 6, "LOC")], [(0, 2, "PER")], [(0, 9, "PER")], [(0, 38, "ORG")]]
    mentions, rng = Mentions(Texts(texts=texts, spans=spans)), np.random.default_rng(1)
    assert mentions.listed("ORG", rng) == ("", [])
    together = list[bool]()
    for _ in range(80):
        text, labels = mentions.listed("PER", rng)
        assert {text[start:end] for start, end, _ in labels} <= {"王小明", "李四", "Anna Berg"}
        assert len(labels) >= 2
        assert labels[-1][1] == len(text)
        joined = all(one[1] == two[0] for one, two in pairwise(labels))
        assert not (joined and "Anna" in text)  # where words stand apart, names do
        together.append(joined)
    assert any(together) != all(together)


def test_a_span_counts_when_both_borders_are_right_and_leaks_where_none_covers_it() -> None:
    truth = [[(0, 4, "PER"), (6, 10, "LOC")]]
    sums = counted(truth, [[(0, 4, "PER"), (6, 8, "LOC")]], ["LOC", "PER"])[0]
    assert ratios(sums[1]) == {"recall": 1.0, "precision": 1.0, "f1": 1.0, "leaked": 0.0}
    assert ratios(sums[0]) == {"recall": 0.0, "precision": 0.0, "f1": 0.0, "leaked": 0.5}
    assert np.isnan(ratios([0, 0, 0, 0, 0])["recall"])


def test_the_graph_answers_as_the_module_that_was_trained(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import onnxruntime as ort

    from contracts.token_hashes import tokenise
    from pipelines.training.tagger import TaggerModel, build_model, padded, write_tagger_graph

    torch.manual_seed(1)
    model = build_model(5, TaggerModel(size=64, embedding=6, hidden=4)).eval()
    with torch.no_grad():
        model.embedding.weight.copy_(model.embedding.weight.half().float() * 20)
    ids, lengths, _ = padded([(tokenise(text, 64).ids, [0] * n) for text, n in (("Anna Berg in Rome", 4), ("王", 1))])
    wanted = model(torch.from_numpy(ids), torch.from_numpy(lengths)).detach().numpy()
    file = tmp_path / "model.onnx"
    write_tagger_graph(file, {name: value.numpy() for name, value in model.state_dict().items()})
    (found,) = ort.InferenceSession(str(file)).run(["logits"], {"ids": ids})
    np.testing.assert_allclose(found[0], wanted[0], atol=2e-3)
    np.testing.assert_allclose(found[1, :1], wanted[1, :1], atol=2e-3)


def test_a_list_of_words_is_learned_with_and_served(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import onnxruntime as ort

    from contracts.engines import load_engine
    from contracts.engines.tagger import WORD_FILE, TaggerEngine
    from contracts.token_hashes import WordList, tokenise, width

    given, task, out = tmp_path / "words.txt", get_task("names"), tmp_path / "source" / "model"
    given.write_text("北京 3 ns\n王小明 3 nr\n", encoding="utf-8")
    table = pd.DataFrame({"text": ["王小明在北京", "李四"] * 4, "label": ['[[0, 3, "PER"]]', '[[0, 2, "PER"]]'] * 4})
    for part in ("train", "valid"):
        table.to_parquet(tmp_path / f"{part}.parquet")
    small = {"model.size": 64, "model.embedding": 4, "model.hidden": 4, "training.epochs": 1}
    config: Any = recipe_config(task, "tagger", {**small, "words": str(given)})
    document = config.train(task, tmp_path, out, tmp_path, lambda *_, **__: None)
    assert document["parameters"]["words"] == 2
    assert "北京".encode() not in (out / WORD_FILE).read_bytes()
    bundle = publish(tmp_path, "text", "tagger", document["output"])
    engine = load_engine(bundle)
    assert isinstance(engine, TaggerEngine)
    text, asked = "王小明在北京", list[Any]()
    session = engine._session
    engine._session = SimpleNamespace(run=lambda names, feed: asked.append(feed["ids"]) or session.run(names, feed))
    engine.tag([text, "", "in Rome"])
    words = WordList.of(given.read_text("utf-8").splitlines())
    assert asked[0].shape[2] == width(words)
    assert (asked[0][1] == tokenise(text, 64, words).ids).all()
    (shape,) = [one.shape for one in ort.InferenceSession(str(bundle.model_path / "model.onnx")).get_inputs()]
    assert shape[2] == width(words)
    (bundle.model_path / WORD_FILE).write_bytes(b"no list")
    with pytest.raises(PlatformError, match=r"tagger|words|bundle"):
        TaggerEngine(bundle)


@pytest.mark.parametrize(("content", "says"), [(b"\n\xe7\n", "cannot be read"), ("的\n\n".encode(), "has no word")])
def test_a_list_of_words_that_is_none_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    from pipelines.recipes.text.tagger import _word_list

    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(PlatformError, match=says) as raised:
        _word_list(str(tmp_path / "words.txt"))
    assert "--set words=FILE" in raised.value.fix


def test_a_linear_chain_expects_what_trying_all_paths_gives() -> None:
    import itertools

    from contracts.tagging import possible
    from pipelines.training.linear_crf import expected

    rng = np.random.default_rng(2)
    scores, moves, lengths = rng.normal(0, 2, (2, 3, 5)), rng.normal(0, 1, (5, 5)), np.array([3, 2])
    total, chances, pairs = 0.0, np.zeros((2, 3, 5)), np.zeros((5, 5))
    for row, length in enumerate(lengths):
        weights: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(5), repeat=int(length)):
            steps = list(itertools.pairwise((0, *path)))
            if all(possible(5)[step] for step in steps):
                score = sum(moves[step] for step in steps) + sum(scores[row, at, tag] for at, tag in enumerate(path))
                weights[path] = float(np.exp(score))
        total += float(np.log(sum(weights.values())))
        for path, weight in weights.items():
            for at, step in enumerate(itertools.pairwise((0, *path))):
                chances[row, at, step[1]] += weight / sum(weights.values())
                pairs[step] += weight / sum(weights.values())
    found = expected(scores, moves, lengths)
    np.testing.assert_allclose(found.chances, chances, atol=1e-9)
    np.testing.assert_allclose(found.pairs, pairs, atol=1e-9)
    assert found.total == pytest.approx(total)


def test_a_step_goes_up_the_likelihood_and_leaves_what_is_hidden_alone() -> None:
    from pipelines.training.linear_crf import LinearCrf

    model = LinearCrf(16, 3)
    ids, tags = (
        np.array([[[1, 2], [3, 0], [0, 0]], [[4, 5], [0, 0], [0, 0]]]),
        np.array([[1, 2, -100], [0, -100, -100]]),
    )
    lengths = np.array([2, 1])
    losses = [model.step(ids, lengths, tags, 0.3) for _ in range(20)]
    assert losses[0] == (pytest.approx(np.log(5) + np.log(2)), 3)  # of five paths and of two, at first all alike
    assert all(one[0] > two[0] for one, two in pairwise(losses))
    assert losses[-1][0] < 0.2
    assert not model.weights[0].any()
    assert not model.weights[6:].any()
    assert (model.scores(ids)[0, :2].argmax(axis=1) == [1, 2]).all()


def test_the_recipe_crf_learns_goes_on_after_a_kill_and_is_served(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from contracts.engines import load_engine
    from contracts.engines.tagger import TaggerEngine

    task, words = get_task("names"), tmp_path / "words.txt"
    words.write_text("王小明 3 nr\n", encoding="utf-8")
    table = pd.DataFrame(
        {
            "text": ["王小明在北京", "今天李四来了", "nobody is here"] * 8,
            "label": ['[[0, 3, "PER"], [4, 6, "LOC"]]', '[[2, 4, "PER"]]', "[]"] * 8,
        }
    )
    for part in ("train", "valid"):
        table.to_parquet(tmp_path / f"{part}.parquet")
    settings = {"model.size": 512, "training.epochs": 6, "change.hide": 0.0, "words": str(words)}
    config: Any = recipe_config(task, "crf", settings)
    seen = list[int]()

    def killed(at: int, _: int, **__: float) -> None:
        seen.append(at)
        if at == 3:
            raise KeyboardInterrupt

    def train(place: str, progress: Any, checkpoints: str) -> dict[str, Any]:
        found: dict[str, Any] = config.train(
            task, tmp_path, tmp_path / place / "model", tmp_path / checkpoints, progress
        )
        return found

    with pytest.raises(KeyboardInterrupt):
        train("source", killed, "killed")
    document = train("source", lambda at, *_, **__: seen.append(at), "killed")
    assert seen == [1, 2, 3, 4, 5, 6]
    whole = train("whole", lambda *_, **__: None, "whole")
    assert whole["history"] == document["history"]
    graphs = [(tmp_path / place / "model" / "model.onnx").read_bytes() for place in ("source", "whole")]
    assert graphs[0] == graphs[1]
    assert document["parameters"]["valid_recall"] == 1.0
    config = recipe_config(task, "crf", {**settings, "recall.LOC": 0.9})
    asked = train("asked", lambda at, *_, **__: seen.append(at), "killed")
    assert seen == [1, 2, 3, 4, 5, 6]  # what is asked of the validation rows trains nothing again
    assert asked["parameters"]["valid_recall:LOC"] == asked["parameters"]["valid_precision:LOC"] == 1.0
    assert json.loads((tmp_path / "asked" / "model" / "tagger.json").read_text())["around"] == 2
    engine = load_engine(publish(tmp_path, "text", "tagger", document["output"]))
    assert isinstance(engine, TaggerEngine)
    found = engine.tag(["王小明在北京", "今天李四来了", ""])
    assert [[one[:3] for one in some] for some in found] == [[(0, 3, "PER"), (4, 6, "LOC")], [(2, 4, "PER")], []]


def made_up_scores(width: int) -> Any:
    """Of texts whose tokens are all one letter: `a` is surely a person, `b` perhaps, `c` less, `o` is nothing."""
    from contracts.token_hashes import tokenise
    from pipelines.recipes.text.cautions import Learned

    of = {
        int(tokenise(sign, width).ids[0, 0]): score for sign, score in zip("abco", (3.0, -1.2, -3.4, -9.0), strict=True)
    }

    def scores(ids: Any, _: Any) -> Any:
        logits = np.full((*ids.shape[:2], 5), -20.0, np.float32)
        logits[..., 0] = 0
        logits[..., 3] = np.vectorize(lambda one: of.get(int(one), -20.0))(ids[..., 0])
        logits[..., 1] = np.where(logits[..., 3] == np.float32(-3.4), -3.0, -20.0)  # `c` is a place rather
        return logits

    return Learned(scores, np.zeros((5, 5)), width, None)


def test_a_type_gets_the_least_caution_that_reaches_its_recall() -> None:
    from pipelines.recipes.text.cautions import chosen

    signs = "aaaaaaabbc" + "o" * 20 + "b"  # the last one is no person
    labels = [[(0, 1, "PER")] if at < 10 else [] for at in range(len(signs))]
    data, kinds = Texts(texts=list(signs), spans=labels), ["LOC", "PER"]
    learned = made_up_scores(4096)

    def told(**given: Any) -> Any:
        config: Any = recipe_config(get_task("names"), "crf", {"cautions": [0.0], **given})
        return chosen(learned, data, kinds, config.cautions, config.recall_weight, config.recall)

    assert told() == (0.0, {}, {"valid_recall": 0.7, "valid_precision": 1.0})
    common, own, reached = told(**{"recall.PER": 0.9})
    assert (common, own) == (0.0, {"PER": 1.5})
    assert (reached["valid_recall:PER"], reached["valid_precision:PER"]) == (0.9, 0.9)
    assert told(**{"recall.PER": 0.95})[1] == {"PER": 3.5}
    assert told(**{"recall.PER": 0.5})[1] == {}
    assert told(**{"recall.PER": 0.95, "cautions": [2.0]})[:2] == (2.0, {"PER": 3.5})
    labels[12].append((0, 1, "PER"))
    with pytest.raises(PlatformError, match=r"recall\.PER of 0\.99 is not reached .*: 0\.9091 at most") as caught:
        told(**{"recall.PER": 0.99})
    assert told(**dict([parse_setting(shlex.split(caught.value.fix.partition(", or")[0])[-1])]))[1] == {"PER": 3.5}
    with pytest.raises(PlatformError, match="spans of type 'PERSON'"):
        told(**{"recall.PERSON": 0.9})


def test_the_loss_is_minus_the_log_of_the_share_that_the_true_path_has() -> None:
    import itertools

    torch = pytest.importorskip("torch")
    from pipelines.training.tagger import sequence_loss, transition_scores

    torch.manual_seed(2)
    logits, moves = torch.randn(1, 3, 5, dtype=torch.float64), transition_scores(torch.randn(5, 5, dtype=torch.float64))

    def score(path: tuple[int, ...]) -> Any:
        pairs = itertools.pairwise((0, *path))
        return sum(moves[a, b] for a, b in pairs) + sum(logits[0, at, tag] for at, tag in enumerate(path))

    every = torch.stack([score(path) for path in itertools.product(range(5), repeat=3)])
    wanted = torch.logsumexp(every, 0) - score((1, 2, 0))
    filled = torch.cat([logits, torch.randn(1, 2, 5, dtype=torch.float64)], dim=1)
    tags = torch.tensor([[1, 2, 0, -100, -100]])
    assert torch.isclose(sequence_loss(filled, moves, tags, torch.tensor([3])), wanted)
