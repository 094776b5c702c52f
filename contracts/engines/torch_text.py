"""Text models as weights, run by torch; see `contracts.transformer`, which is imported with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.engine import Engine, EngineOptions, EngineSpec

if TYPE_CHECKING:
    from contracts.bundle import Bundle


def load(bundle: Bundle, options: EngineOptions) -> Engine:
    """See `contracts.engines.load_engine`."""
    from contracts.transformer import TorchTextEngine

    return TorchTextEngine(bundle, options.threads, options.device, options.compiled)


ENGINE = EngineSpec(name="torch", modality="text", extra="services,torch", image="VARIANT=gpu", load=load)
