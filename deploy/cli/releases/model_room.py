"""Whether a chat model fits into the memory that its release gives it, told before anything is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from contracts.bundle import Bundle
from contracts.quantities import parse

_CACHES = 3  # of the base, of a set of adapters, and of the next set while it starts


def check_release(bundle: Bundle, text: str, chart: Path) -> None:
    """Refuse values by which the pod could not load the model; models that do not write have nothing to refuse.

    Args:
        text: of the values file.
        chart: whose own values are behind it.

    Raises:
        PlatformError: ``code="too_large"``, with what would fit.
    """
    if bundle.document.engine != "llamacpp":
        return
    from contracts.engines.llamacpp import SPEC, WEIGHTS, ChatSpec
    from contracts.gguf import read_head
    from contracts.model_memory import check_gpu, check_room

    values = _merged(yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8")), yaml.safe_load(text) or {})
    head, config, engine = read_head(bundle.model_path / WEIGHTS), values["config"], values["engine"]
    spec = ChatSpec.model_validate_json((bundle.model_path / SPEC).read_bytes())
    window, name = int(config.get("window") or spec.window), bundle.document.name
    if engine["kind"] == "vllm":
        if engine["gpuMemory"]:
            gpus, share = int(values["gpu"]["count"]) * int(engine["nodes"]), float(engine["memoryShare"])
            check_gpu(name, head, int(parse(engine["gpuMemory"])), window=window, gpus=gpus, share=share)
        return
    if not config.get("memory_check", True):
        return
    if (config.get("engine") or {}).get("url") or not (limit := values["resources"]["limits"].get("memory")):
        return
    check_room(
        name,
        head,
        int(parse(limit)),
        window=window,
        slots=int(config.get("slots") or 4),
        caches=_CACHES if (config.get("adapters") or {}).get("folder") else 1,
        where="its pod",
        key="resources.limits.memory and resources.requests.memory",
    )


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values as Helm merges them."""
    made = dict(below)
    for key, value in above.items():
        inner = made.get(key)
        made[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return made
