"""Engines that misbehave once a service has proven itself: the package of the challengers that must not stay."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from contracts.bundle import Bundle
from contracts.engine import Engine, EngineOptions
from contracts.engines import lightgbm
from contracts.engines.lightgbm import ENGINE

_PROVEN = 200  # calls: golden examples and the first requests
_EVERY, _SECONDS = 50, 0.06


class _Wrapped:
    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._engine, self._calls = lightgbm.load(bundle, options), 0

    def explain(self, columns: Any, top: int) -> Any:
        """See `contracts.engine.Engine`."""
        return self._engine.explain(columns, top)

    def predict(self, columns: Any) -> Any:
        """See `contracts.engine.Engine`."""
        self._calls += 1
        self.before()
        return self._engine.predict(columns)

    def before(self) -> None:
        raise NotImplementedError


class Failing(_Wrapped):
    """Fails in 2 % of its calls."""

    def before(self) -> None:
        if self._calls > _PROVEN and self._calls % _EVERY == 0:
            raise RuntimeError("the model is out of order")


class Slow(_Wrapped):
    """Takes its time."""

    def before(self) -> None:
        time.sleep(_SECONDS if self._calls > _PROVEN else 0)


def _load_failing(bundle: Bundle, options: EngineOptions) -> Engine:
    return Failing(bundle, options)


def _load_slow(bundle: Bundle, options: EngineOptions) -> Engine:
    return Slow(bundle, options)


FAILING = replace(ENGINE, name="replay_failing", load=_load_failing)
SLOW = replace(ENGINE, name="replay_slow", load=_load_slow)
ENTRIES = "replay_failing = replay_faults:FAILING\nreplay_slow = replay_faults:SLOW"
