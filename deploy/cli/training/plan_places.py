"""Where a planned training fits on a cluster, on how many nodes, and what it costs at the prices of the profile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from contracts.quantities import memory, parse, shown
from pipelines.cost import step_cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.cli.cluster.capacity import Node
    from deploy.cli.cluster.cluster_settings import Profile
    from pipelines.cost import Prices
    from pipelines.resources import Resources
    from pipelines.run import Run

_LISTED, _LOOKED_AT = 60, 10  # runs of a cluster that are listed, and looked at for what they took
GPU_MEMORY = "nvidia.com/gpu.memory"  # label of nodes, in MiB, where NVIDIA's feature discovery runs


def planned_needs(run: Run, plan: Mapping[str, Any]) -> Resources:
    """What the step `train` of a run asks for: what was set, else the memory of its plan."""
    from deploy.cli.cluster_runs.step_resources import step_needs

    needs = step_needs(run, {})["train"]
    if any(f"resources.{step}.memory" in run.settings for step in ("train", "all")):
        return needs
    return replace(needs, memory=memory(max(int(parse(plan["resources"])), int(parse(needs.memory)))))


def money(plan: Mapping[str, Any], needs: Resources | None, prices: Prices | None) -> dict[str, Any] | None:
    """What the training costs, as a band in the currency of the prices; None without prices or without a time.

    needs: what its pod asks for; None on this machine, where nothing is.
    """
    if prices is None or "seconds" not in plan["train"]:
        return None
    fits = [fit["cpu_seconds"] / fit["seconds"] for fit in plan["fits"] if fit.get("cpu_seconds") and fit["seconds"]]
    band: dict[str, Any] = {"currency": prices.currency}
    for end in ("low", "likely", "high"):
        took = plan["train"]["seconds"][end]
        step = {"seconds": took, "memory_peak": plan["train"]["memory_peak"]["likely"]}
        step |= {"cpu_seconds": max(fits) * took} if fits else {}
        band[end] = step_cost("train", step, needs, prices, needs.gpus if needs else 0).money
    return band


def too_large(run: Mapping[str, Any], step: str) -> str:
    """What to do about data for which one process has not enough memory here.

    The need is not known then: it is more than there is, and twice the bytes of the source at least, since DuckDB has
    half of a worker's memory.

    Args:
        run: a document of `Run`.  step: the one that ended, "" where that is not known.
    """
    from contracts.model_memory import memory_limit
    from pipelines.data_engines import enough, shares_out

    less, have = "give less data, or a machine with more memory", memory_limit()
    if step == "build_dataset":  # of one process with Ray too
        return f"{less}; on a cluster: --set resources.build_dataset.memory={memory(2 * have)}"
    if shares_out(run["settings"]):
        return f"{less}; or give each worker more of it: --set data.memory"
    said, _ = enough(max(have, 2 * _size(str(run["source"]))))
    return f"share the work out to several machines: --profile of a cluster, {said}; or {less}"


def _size(source: str) -> int:
    """Bytes of a source of files; 0 of another one, and where it cannot be looked at."""
    if not source or ("://" in source and not storage.is_remote(source)):
        return 0
    with contextlib.suppress(PlatformError, OSError):
        return sum(item.size for item in storage.listing(source))
    return 0


def cluster_records(profile: Profile, run: Run, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """What runs of the cluster took that did as `run` asks, the newest first, as their steps recorded it.

    A cluster that does not answer corrects nothing, and that is said.
    """
    from deploy.cli.cluster_runs.access import open_access
    from deploy.cli.cluster_runs.lookup import find_run, list_runs, look_at

    if profile.cluster is None or not profile.cluster.kfp:
        return []
    recipe, found = run.config.get("recipe"), list[dict[str, Any]]()
    try:
        access = open_access(profile)
        listed = [
            one for one in list_runs(access, _LISTED) if (one.get("task"), one.get("recipe")) == (run.task, recipe)
        ]
        for one in listed[:_LOOKED_AT]:
            found.append(look_at(access, find_run(access, str(one["run_id"]))))
    except PlatformError as err:
        say(f"-- runs of the cluster correct nothing: {err.headline}")
    return found


def places(profile: Profile, run: Run, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of the profile's cluster that take the training.

    Returns:
        asks (memory, cpu, gpus), nodes (name, now and empty: how many such pods it takes), fits, and says: why none
        does, what would, or that nobody could look.
    """
    from deploy.cli.cluster import capacity

    assert profile.cluster is not None
    needs = planned_needs(run, plan)
    ask = capacity.Ask(name="train", step="train", needs=needs, pods=run.placing.train_nodes)
    found: dict[str, Any] = {"asks": {"memory": needs.memory, "cpu": needs.cpu, "gpus": needs.gpus}, "nodes": []}
    try:
        nodes = capacity.look(profile.cluster.namespace, profile.cluster.context)
    except PlatformError as err:
        return {**found, "fits": None, "says": f"the nodes could not be looked at: {err.headline}"}
    small = _too_small(nodes, needs, plan)
    able = [node for node in nodes if node.name not in small]
    (fit,) = capacity.fits([ask], able) if able else (None,)
    found["nodes"] = [
        {"node": node.name, "now": ask.room(node, empty=False), "empty": ask.room(node, empty=True)} for node in able
    ]
    if fit is None:
        return {**found, "fits": False, "says": f"the GPUs of all nodes are too small: {_sizes(small)}"}
    says = "; ".join(filter(None, [fit.says, f"GPUs that are too small: {_sizes(small)}" if small else ""]))
    if fit.verdict == "never" and fit.setting:
        says += f"; what would: --set {fit.setting}, or a larger node"
    return {**found, "fits": fit.verdict != "never", "says": says}


def _too_small(nodes: Sequence[Node], needs: Resources, plan: Mapping[str, Any]) -> dict[str, int]:
    """Nodes whose GPUs have less memory than the training needs, with the bytes that they have."""
    from pipelines.planned import FULL, gpu_need

    if not needs.gpus or not plan.get("steps"):
        return {}
    need = gpu_need(plan["steps"])
    sizes = {node.name: int(node.labels[GPU_MEMORY]) * 2**20 for node in nodes if node.labels.get(GPU_MEMORY)}
    return {name: size for name, size in sizes.items() if need > FULL * size}


def _sizes(small: Mapping[str, int]) -> str:
    return ", ".join(f"{name} has {shown(size)}" for name, size in sorted(small.items()))
