"""Engines that misbehave once a service has proven itself: the package that the versions of a test are served by."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from contracts.bundle import Bundle
from contracts.engine import Engine, EngineOptions
from contracts.engines import onnx_tabular
from contracts.engines.onnx_tabular import ENGINE

ENTRIES = "e2e_failing = faulty_engines:FAILING\ne2e_slow = faulty_engines:SLOW"
_SECONDS = 0.3
_PROVEN = 40  # calls: the golden examples in one, then one of them until it is warm


class _Faulty:
    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self._engine, self._calls = onnx_tabular.load(bundle, options), 0

    def explain(self, columns: Any, top: int) -> Any:
        """See `contracts.engine.Engine`."""
        return self._engine.explain(columns, top)

    def predict(self, columns: Any) -> Any:
        """See `contracts.engine.Engine`."""
        self._calls += 1
        if self._calls > _PROVEN:
            self.misbehave(self._calls)
        return self._engine.predict(columns)

    def misbehave(self, call: int) -> None:
        raise NotImplementedError


class Failing(_Faulty):
    """Fails in every second call."""

    def misbehave(self, call: int) -> None:
        if call % 2:
            raise RuntimeError("the model is out of order")


class Slow(_Faulty):
    """Takes its time."""

    def misbehave(self, call: int) -> None:
        time.sleep(_SECONDS)


def _load_failing(bundle: Bundle, options: EngineOptions) -> Engine:
    return Failing(bundle, options)


def _load_slow(bundle: Bundle, options: EngineOptions) -> Engine:
    return Slow(bundle, options)


FAILING = replace(ENGINE, name="e2e_failing", load=_load_failing)
SLOW = replace(ENGINE, name="e2e_slow", load=_load_slow)
