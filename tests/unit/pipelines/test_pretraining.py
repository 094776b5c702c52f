"""A language model from scratch: tokens, batches, the loop, what it is compared with, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.checks.base import Candidate
from pipelines.checks.pretraining import CHECK as PRETRAINING
from pipelines.recipes.chat.pretrain_run import Document, _check_shape, _fingerprint, _texts, documents
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.writing.reports import reports
from pipelines.training.byte_pairs import ANSWER_ID, END_ID, SMALLEST, character_tokens, train_byte_pairs
from pipelines.training.language_model import PretrainingConfig, Text, learning_rate
from pipelines.training.ngram_text import memorised, ngram_bits

VERSE = "床前明月光，疑是地上霜。\nThe moon, bright — “like frost”. 😀"


@pytest.mark.parametrize("make", [train_byte_pairs, character_tokens])
def test_every_text_can_be_written_and_read_again(make: Any) -> None:
    tokenizer = make([VERSE] * 3, 600)
    for text in (VERSE, "龘 never seen \x00\n\n\tend", "", "a" * 5_000):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_characters_are_one_token_each_and_others_are_bytes() -> None:
    tokenizer = character_tokens([VERSE], 1_000)
    assert len(tokenizer.encode("明月光😀").ids) == 4
    assert len(tokenizer.encode("龘").ids) == 3
    assert tokenizer.encode("moon").ids == [tokenizer.token_to_id(one) for one in "moon"]


def test_the_commonest_characters_are_kept_where_not_all_fit() -> None:
    tokenizer = character_tokens(["月" * 9 + "".join(map(chr, range(0x4E00, 0x4F00)))], SMALLEST + 40)
    assert tokenizer.get_vocab_size() <= SMALLEST + 40
    assert len(tokenizer.encode("月").ids) == 1
    assert len(tokenizer.encode("仿").ids) == 3


def test_a_text_with_fewer_pairs_than_were_asked_for_gives_fewer_tokens() -> None:
    assert train_byte_pairs(["abab abab"], 100_000).get_vocab_size() < 300


@pytest.mark.parametrize("make", [train_byte_pairs, character_tokens])
def test_a_vocabulary_below_the_bytes_is_refused(make: Any) -> None:
    with pytest.raises(PlatformError, match="vocabulary is 100") as caught:
        make(["text"], 100)
    assert str(SMALLEST + 1) in str(caught.value.fix)


def text(*ids: int, asked: int = 1) -> Text:
    return Text(ids=ids, asked=asked, size=len(ids) - asked, characters=len(ids) - asked)


def test_rows_are_padded_and_what_is_asked_is_not_learned() -> None:
    pytest.importorskip("torch")
    from pipelines.training.language_model import Batches

    batches = Batches([text(0, 5, 6, 2, 7, 8, 0, asked=4), text(0, 3, 0)], 0, "train")
    ids, wanted = batches.draw(0, 2, seed=1)
    assert ids.tolist() == [[0, 3, 0, 0, 0, 0], [0, 5, 6, 2, 7, 8]]
    assert wanted.tolist() == [[3, 0, -100, -100, -100, -100], [-100, -100, -100, 7, 8, 0]]
    assert batches.tokens == 5


def test_a_stream_is_measured_once_a_token_and_drawn_by_the_number_of_the_step() -> None:
    pytest.importorskip("torch")
    from pipelines.training.language_model import Batches

    batches = Batches([text(*range(50))], 8, "train")
    assert [token for _, wanted in batches.all() for row in wanted.tolist() for token in row] == list(range(1, 50))
    first, again, other = (batches.draw(step, 4, seed=3)[0].tolist() for step in (5, 5, 6))
    assert first == again != other


def test_a_corpus_shorter_than_one_window_is_refused() -> None:
    pytest.importorskip("torch")
    from pipelines.training.language_model import Batches

    with pytest.raises(PlatformError, match="shorter than one window: 20 tokens") as caught:
        Batches([text(*range(20))], 64, "valid")
    assert "model.window=16" in str(caught.value.fix)


def test_the_rate_rises_by_a_line_and_falls_to_a_tenth() -> None:
    config = PretrainingConfig(steps=100, warmup=0.1, learning_rate=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([at / 10 for at in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.001)


class Kept:
    """What was saved, in memory."""

    def __init__(self, found: Any = None) -> None:
        self.found = found

    def load(self) -> Any:
        return self.found

    def save(self, tensors: Any, notes: Any) -> None:
        import copy

        self.found = copy.deepcopy((tensors, notes))


def learned(config: PretrainingConfig, kept: Kept, stop: int = 0) -> tuple[list[dict[str, float]], dict[str, Any]]:
    import torch

    from pipelines.training.language_model import LlamaShape, train
    from pipelines.training.llama import Llama

    torch.manual_seed(1)
    shape = LlamaShape(layers=1, width=32, heads=2)
    model = Llama(shape, 12, 16, config.dropout, config.gradient_checkpointing)
    parts = {name: [text(*[at % 10 for at in range(200)])] for name in ("train", "valid")}

    def told(done: float, total: Any, **more: Any) -> None:
        if stop and done >= stop:
            raise KeyboardInterrupt

    found = train(model, parts, config, window=8, device="cpu", seed=5, checkpoint=kept, progress=told)  # type: ignore[arg-type]
    return found, model.state_dict()


QUICK = PretrainingConfig(steps=24, batch_size=4, evaluate=4, dropout=0.1, learning_rate=0.02)


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not() -> None:
    torch = pytest.importorskip("torch")
    history, whole = learned(QUICK, Kept())
    assert history[-1]["valid_loss"] < 0.5 < history[0]["valid_loss"]
    kept = Kept()
    with pytest.raises(KeyboardInterrupt):
        learned(QUICK, kept, stop=12)
    again, resumed = learned(QUICK, kept)
    assert again == history
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_activations_that_are_computed_twice_change_nothing() -> None:
    torch = pytest.importorskip("torch")
    from dataclasses import replace

    _, plain = learned(replace(QUICK, dropout=0.0, steps=4), Kept())
    _, spared = learned(replace(QUICK, dropout=0.0, steps=4, gradient_checkpointing=True), Kept())
    assert all(torch.allclose(plain[name], spared[name], atol=1e-6) for name in plain)


def test_a_training_stops_where_the_validation_no_longer_gains() -> None:
    pytest.importorskip("torch")
    from dataclasses import replace

    config = replace(QUICK, steps=200, evaluate=50, patience=2, learning_rate=0.3, clip=100.0)
    history, _ = learned(config, Kept())
    losses = [one["valid_loss"] for one in history]
    assert len(losses) < 50
    assert losses.index(min(losses)) == len(losses) - 3


def test_a_loss_that_is_no_number_ends_the_training_with_what_to_do() -> None:
    pytest.importorskip("torch")
    from dataclasses import replace

    with pytest.raises(PlatformError, match="the loss is no number at step") as caught:
        learned(replace(QUICK, learning_rate=1e30, clip=1e30), Kept())
    assert caught.value.code == "diverged"


def test_it_is_the_llama_of_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from pipelines.training.language_model import LlamaShape
    from pipelines.training.llama import Llama, config_of

    torch.manual_seed(0)
    shape = LlamaShape(layers=2, width=64, heads=4, key_heads=2, tied=False)
    ours = Llama(shape, 50, 32, 0.0).eval()
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config_of(shape, 50, 32, END_ID))).eval()
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(0, 50, (2, 20))
    with torch.inference_mode():
        assert torch.allclose(ours(ids), theirs(input_ids=ids).logits, atol=1e-5)


def test_counted_runs_know_what_follows_and_give_the_unseen_a_chance() -> None:
    train = [text(*[at % 5 for at in range(100)])]
    assert ngram_bits(train, [text(0, 1, 2, 3, 4, 0, 1)])["bits_per_byte"] < 0.3
    unseen = ngram_bits(train, [text(0, 7, 7)])
    assert math.isfinite(unseen["bits_per_byte"])
    assert unseen["bits_per_byte"] > 2


def test_what_stands_in_the_training_texts_is_counted_by_runs() -> None:
    known = "".join(chr(97 + at * 7 % 26) for at in range(90))
    assert memorised([known[10:70]], ["other", known]) == 1
    assert memorised([known[10:70] + "!" * 60], [known]) == pytest.approx(11 / 71)
    assert memorised(["short"], [known]) is None


def test_pieces_of_a_document_are_one_text_and_prompts_are_not_joined() -> None:
    config = recipe_config(get_task("writing"), "pretrain")
    rows = [
        ("b.txt#000001", "", "", "c ", "d"),
        ("b.txt#000000", "", "", "a ", "b "),
        ("b.txt#000003", "", "", "far", " away"),
        ("E1", "News", "who: Ann", "", "Ann did it."),
    ]
    frame = pd.DataFrame(rows, columns=["id", "headline", "facts", "beginning", "label"])
    found = {one.said: one.written for one in documents(frame, config) if one.said}
    assert found == {"News\nwho: Ann": "Ann did it."}
    assert [one.written for one in documents(frame, config) if not one.said] == ["a b c d", "far away"]


def test_a_report_tells_every_fact_and_nothing_else() -> None:
    from pipelines.evaluation.faithfulness import facts_kept, unsupported

    rows = list(reports(120, 3))
    assert {row["id"][0] for row in rows} == {"E", "Z"}
    assert rows == list(reports(120, 3)) != list(reports(120, 4))
    for row in rows:
        source = f"{row['headline']}\n{row['facts']}"
        assert facts_kept(row["text"], source) == 1
        assert unsupported(row["text"], source).numbers == ()
    assert facts_kept("Nothing of it.", rows[0]["facts"]) == 0
    assert math.isnan(facts_kept("a", "no facts here"))
    assert ANSWER_ID == 2


def test_a_training_of_other_settings_or_data_is_not_gone_on_with(tmp_path: Path) -> None:
    task = get_task("writing")

    def known_as(**more: Any) -> str:
        return _fingerprint(recipe_config(task, "pretrain", more), tmp_path)

    for name in ("train", "valid"):
        (tmp_path / f"{name}.parquet").write_bytes(b"rows")
    first = known_as()
    assert first == known_as(**{"gate.tuning.memorised": 0.5})
    assert first != known_as(**{"training.learning_rate": 0.01})
    assert first != known_as(**{"model.vocabulary": 999})
    (tmp_path / "train.parquet").write_bytes(b"other rows")
    assert first != known_as()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"model.heads": 5}, "5 heads"), ({"model.key_heads": 3}, "key_heads=3"), ({"model.max_tokens": 256}, "256")],
)
def test_sizes_that_do_not_fit_each_other_are_refused(settings: dict[str, Any], words: str) -> None:
    config: Any = recipe_config(get_task("writing"), "pretrain", settings)
    with pytest.raises(PlatformError, match="do not fit each other") as caught:
        _check_shape(config.model)
    assert words in str(caught.value.detail)


def test_a_text_that_is_longer_than_the_model_sees_is_refused_with_its_size() -> None:
    tokenizer = character_tokens([VERSE], 600)
    with pytest.raises(PlatformError, match="text 2 has 106 tokens") as caught:
        _texts(tokenizer, [Document(said="", written="a"), Document(said="a", written="b" * 101)], 64)
    assert "model.window=128" in str(caught.value.fix)


def test_a_mark_in_a_text_is_written_and_does_not_end_it() -> None:
    [found] = _texts(character_tokens([VERSE], 600), [Document(said="", written="a<|end|>b")], 0)
    assert found.ids.count(END_ID) == 2  # before and behind


@pytest.mark.parametrize(("bits", "copied", "passed"), [(0.3, 0.5, True), (0.5, 0.5, False), (0.3, 0.7, False)])
def test_the_gate_compares_with_counting_and_with_held_out_texts(bits: float, copied: float, passed: bool) -> None:
    told = {"bits_per_byte": bits, "ngram": {"bits_per_byte": 0.4}, "memorised": copied, "memorised_held_out": 0.4}
    candidate = Candidate(
        task="writing",
        folder=Path(),
        dataset=Path(),
        evaluation={"pretraining": told},
        settings=recipe_config(get_task("writing"), "pretrain").gate,
        endpoints=Endpoints(),
    )
    checks = PRETRAINING.find(candidate).checks
    assert [check.metric for check in checks] == ["valid_bits_per_byte", "memorised"]
    assert all(check.passed for check in checks) == passed


@pytest.mark.parametrize(
    ("writer", "refused"),
    [
        (lambda row: row["text"], set()),
        (lambda row: "", {"rouge_l", "facts_kept", "distinct_2", "empty"}),
        (lambda row: "Nobody was hurt. " * 9, {"rouge_l", "facts_kept", "distinct_2", "repetition"}),
        (lambda row: f"{row['text']} {row['text']}", {"repetition"}),
        (
            lambda row: row["text"].translate(str.maketrans("0123456789", "1234567890")),
            {"unsupported_numbers", "facts_kept"},
        ),
    ],
    ids=["the reports", "nothing", "one text", "all twice", "other numbers"],
)
def test_the_gate_of_writing_refuses_a_writer_by_what_it_does_wrong(writer: Any, refused: set[str]) -> None:
    from pipelines.evaluation.generation import EVALUATION

    rows = pd.DataFrame(list(reports(136, 7))).rename(columns={"text": "label"})
    answers = [writer({"text": text}) for text in rows["label"]]
    rules = recipe_config(get_task("writing"), "pretrain").gate.thresholds
    found = EVALUATION.measure_for(rows, answers, None, None, [rule.metric for rule in rules])(None)  # type: ignore[arg-type]
    below = {rule.metric for rule in rules if rule.minimum is not None and not found[rule.metric] >= rule.minimum}
    above = {rule.metric for rule in rules if rule.maximum is not None and not found[rule.metric] <= rule.maximum}
    assert below | above == refused
