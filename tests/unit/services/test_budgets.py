"""What keys may use: reserved as a request begins, set right as it ends, in the minute and on the day of its begin."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.budgets import Budgets
from services.errors import Problem
from services.ledger import MemoryLedger, day
from services.router.settings import Budget
from services.settings import BudgetSettings, ServiceSettings


def budgets(ledger: MemoryLedger, denied: list[str], **given: Any) -> Budgets:
    budget = Budget.model_validate(given)
    return Budgets(lambda _: budget, ledger, denied.append)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20), st.integers(1, 200))
def test_a_day_has_what_was_taken_and_not_what_was_reserved(asked: list[tuple[int, int]], most: int) -> None:
    async def told() -> None:
        ledger, denied, taken = MemoryLedger(), list[str](), 0
        given = budgets(ledger, denied, tokens_per_day=most)
        for reserve, used in asked:
            if taken + reserve > most:
                with pytest.raises(Problem, match="may not ask for more"):
                    await given.reserve("ada", reserve)
                assert denied.pop() == "budget"
                continue
            await given.settle(await given.reserve("ada", reserve), used)
            taken += used
            assert (await ledger.read(f"day:{day()}:ada"))["tokens"] == taken

    asyncio.run(told())


def test_what_the_day_refuses_costs_the_minute_nothing() -> None:
    async def told() -> None:
        ledger = MemoryLedger()
        given = budgets(ledger, [], tokens_per_minute=100, tokens_per_day=60)
        with pytest.raises(Problem) as refused:
            await given.reserve("ada", 80)
        assert refused.value.status == 429
        minute = next(name for name in ledger._parts if name.startswith("minute:"))
        assert (await ledger.read(minute))["tokens"] == 0

    asyncio.run(told())


def test_what_is_set_right_in_the_next_minute_gives_that_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def told() -> None:
        now, ledger, denied = [1_000_000 * 60.0 + 59], MemoryLedger(), list[str]()
        monkeypatch.setattr(time, "time", lambda: now[0])
        given = budgets(ledger, denied, tokens_per_minute=100)
        first = await given.reserve("ada", 100)
        now[0] += 2
        await given.settle(first, 10)
        await given.reserve("ada", 100)
        with pytest.raises(Problem) as refused:
            await given.reserve("ada", 1)
        assert (refused.value.headers["retry-after"], denied) == ("59", ["rate"])

    asyncio.run(told())


def test_budgets_of_keys_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValidationError, match="names ada, and there is no keys_file"):
        ServiceSettings.model_validate({"budgets": {"keys": {"ada": {"tokens_per_day": 5}}}})
    everybody = BudgetSettings.model_validate({"keys": {"default": {"tokens_per_day": 5}, "boss": {}}})
    assert [everybody.of(name).tokens_per_day for name in ("ada", "boss")] == [5, 0]
