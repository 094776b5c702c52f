"""What a tuning takes: its memory by the formula, and its time by a few real steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.recipes.chat import planned_steps
from pipelines.training import tuning_memory as formula
from pipelines.training.chat_tuning import LoraConfig, TuningConfig


def test_the_formula_counts_what_is_trained_and_held() -> None:
    shape = formula.Shape(hidden=64, inner=128, layers=2, keys=32, vocabulary=1000, tied=True)
    assert shape.parameters == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 1000 * 64 + 5 * 64
    config, lora = TuningConfig(), LoraConfig(rank=4, targets=("q_proj", "k_proj", "down_proj"))
    assert formula.trained_by(shape, lora) == 2 * 4 * ((64 + 64) + (64 + 32) + (128 + 64))
    whole = formula.held(shape, config, LoraConfig(rank=0), 100, half=False)
    assert whole.weights + whole.gradients + whole.optimiser == 16 * shape.parameters
    few = formula.held(shape, config, lora, 100, half=False)
    four = formula.held(shape, config, replace(lora, four_bits=True), 100, half=True)
    assert four.total < few.total < whole.total
    assert formula.held(shape, replace(config, gradient_checkpointing=True), lora, 100, half=False).total < few.total
    assert whole.as_dict()["total"] == pytest.approx(sum(list(whole.as_dict().values())[:-1]), abs=5)
    said = formula.alternatives(shape, config, LoraConfig(rank=0), 50, 1, half=True)
    assert said[0][0] == "--set training.gradient_checkpointing=true"
    assert "lora.four_bits=true" in said[-1][0]
    assert said[-1][1] == min(need for _, need in said)


def test_the_time_of_a_tuning_is_its_steps_its_epochs_and_what_is_in_none() -> None:
    """Two epochs of three steps of 2 s, 5 s between them; 7 s before the first step, 4 s after the last."""
    marks = [(9.0, 1, True), (11.0, 1, True), (13.0, 1, True), (16.0, 1, False)]
    marks += [(20.0, 2, True), (22.0, 2, True), (24.0, 2, True), (27.0, 2, False)]
    parts = planned_steps._parts(33.0, marks, 0.5)
    assert (parts.step, parts.epoch, parts.around) == (2.0, 5.0, 33.0 - 6 * 2 - 2 * 5)
    one = planned_steps._parts(33.0, [(9.0, 1, True), (12.0, 1, False)], 0.5)
    assert (one.step, one.epoch, one.around) == (0.5, 3.0, 33.0 - 0.5 - 3)
    none = planned_steps._parts(33.0, [], 0.5)
    assert (none.step, none.epoch, none.around) == (0.5, 0.0, 33.0)


def test_the_longest_batch_of_each_epoch_says_nothing_of_a_usual_step() -> None:
    """Two epochs of eight steps: seven of 1 s or 3 s in turn, whose mean counts, and one of 50 s."""
    marks, at = [], 0.0
    for epoch in (1, 2):
        for step in (1, 3, 50, 1, 3, 1, 3, 1):
            marks.append((at := at + step, epoch, True))
        marks.append((at := at + 5, epoch, False))
    parts = planned_steps._parts(200.0, marks, 0.5)
    assert (parts.steps, parts.epoch) == (14, pytest.approx(6.0 - parts.step))
    assert parts.step == pytest.approx((3 * 3 + 3 * 1) * 2 / 12)
