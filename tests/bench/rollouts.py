"""Right and wrong decisions of rollouts, and what their router costs: ``make bench-rollouts [ARGS="--rollouts 1000"]``.

The decisions are those of `services.rollout.decide` on invented traffic of 20 requests/s, judged in everything that it
judges. Peers are simulated with their defaults on the same traffic.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.rollout_policy import RolloutPolicy
from deploy.cli.machine.ports import free_port
from deploy.cli.serving.router import Router
from services.rollout.envoy import Address, Routing
from services.server.launch import serve_command
from tests.bench.report import Row, write
from tests.bench.serving_load import closed_loop
from tests.problem_bundles import linear_prices
from tests.rollout_traffic import Behaviour, simulated

PER_SECOND, LONGEST = 20, 7200.0
POLICY = RolloutPolicy()
FROM_FIVE = POLICY.model_copy(update={"weights": (5.0, 25.0, 50.0, 100.0)})
_ROUNDS, _SECONDS = 9, 2.0


class Outcome(NamedTuple):
    """How a simulated rollout went on, and after how many seconds."""

    phase: str
    seconds: float


def one(seed: int, champion: float, candidate: float, policy: RolloutPolicy, look: float) -> Outcome:
    """A rollout of two versions that differ in their share of errors only."""
    behaviours = (Behaviour(errors=champion), Behaviour(errors=candidate))
    state, seconds = simulated(seed, *behaviours, policy=policy, per_second=PER_SECOND, look=look, longest=LONGEST)
    return Outcome(state.phase, seconds)


def many(count: int, champion: float, candidate: float, policy: RolloutPolicy, look: float) -> list[Outcome]:
    """`count` rollouts, on all cores."""
    run = partial(one, champion=champion, candidate=candidate, policy=policy, look=look)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(run, range(count), chunksize=10))


def flagger(seed: int, candidate: float) -> float:
    """Seconds until Flagger rolls back: a look each minute at the success rate of that minute, 5 failed ones.

    Its documented defaults: interval 1 m, threshold 5, request-success-rate at least 99 %, weight 5 % more after each
    good look up to 50 %, which then promotes (infinity).
    """
    random, failed, weight = np.random.default_rng(seed), 0, 5
    for minute in range(1, 120):
        requests = random.poisson(PER_SECOND * 60 * weight / 100)
        if requests and random.binomial(requests, candidate) / requests > 0.01:
            failed += 1
        elif weight >= 50:
            return float("inf")
        else:
            weight += 5
        if failed == 5:
            return minute * 60.0
    return float("inf")


def decisions(count: int) -> list[Row]:
    """Shares of wrong decisions, looked at every 5 s, and the time to promote."""
    rows = []
    for base in (0.005,):
        found = many(count, base, base, POLICY, 5.0)
        refused = 100 * statistics.mean(each.phase == "rolled_back" for each in found)
        case = f"equal version, {base:.1%} errors"
        rows.append(Row(case=f"{case}: refused", contestant="fairlead", value=refused, unit="%", goal="<= 1"))
        took = [each.seconds for each in found if each.phase == "settling"]
        rows.append(
            Row(case=f"{case}: to 100 %, median", contestant="fairlead", value=statistics.median(took), unit="s")
        )
        found = many(count, base, base + 0.02, POLICY, 5.0)
        promoted = 100 * statistics.mean(each.phase != "rolled_back" for each in found)
        case = f"2 points worse than {base:.1%}"
        rows.append(Row(case=f"{case}: not rolled back", contestant="fairlead", value=promoted, unit="%", goal="<= 1"))
    return rows


def reactions(count: int) -> list[Row]:
    """Time until a version that errs is rolled back, looked at every second."""
    rows = []
    for case, base, errors, policy, goal in (
        ("10 % errors at 5 %", 0.001, 0.1, FROM_FIVE, "<= 60"),
        ("1 point more than 0.1 %, from 1 %", 0.001, 0.011, POLICY, "<= 600"),
        ("1 point more than 1 %, from 1 %", 0.01, 0.02, POLICY, "<= 600"),
    ):
        found = many(count, base, errors, policy, 1.0)
        seconds = [each.seconds if each.phase == "rolled_back" else float("inf") for each in found]
        inside = 100 * statistics.mean(each <= float(goal.split()[1]) for each in seconds)
        middle, late = np.quantile(seconds, [0.5, 0.95], method="inverted_cdf").tolist()
        rows.append(Row(case=f"{case}: rolled back, median", contestant="fairlead", value=middle, unit="s", goal=goal))
        rows.append(Row(case=f"{case}: rolled back, p95", contestant="fairlead", value=late, unit="s"))
        rows.append(Row(case=f"{case}: in time", contestant="fairlead", value=inside, unit="%"))
        peer = [flagger(seed, errors) for seed in range(count)]
        middle = float(np.quantile(peer, 0.5, method="inverted_cdf"))
        value = middle if middle != float("inf") else float("nan")
        rows.append(Row(case=f"{case}: rolled back, median", contestant="Flagger's defaults", value=value, unit="s"))
        kept = 100 * statistics.mean(each == float("inf") for each in peer)
        rows.append(Row(case=f"{case}: promoted", contestant="Flagger's defaults", value=kept, unit="%"))
    return rows


def router() -> list[Row]:
    """What the router adds to a prediction at p50, one connection, asked in turns; and its memory."""
    import psutil

    from tests.servers import running, wait_for

    with tempfile.TemporaryDirectory() as name:
        folder, port, front, admin = Path(name), free_port(), free_port(), free_port()
        bundle = linear_prices(folder / "made")
        command = serve_command("tabular", str(bundle.path), port=port, name="model", version="1")
        with running(list(command.argv), command.env, folder / "server.log"):
            wait_for(f"http://127.0.0.1:{port}/v2/health/ready", folder / "server.log")
            routing = Routing(versions={"1": Address("127.0.0.1", port)}, champion="1")
            made = Router(folder / "router", (Address("127.0.0.1", front),), Address("127.0.0.1", admin))
            made.write(routing, (), routing.versions)
            process = made.start()
            try:
                wait_for(f"http://127.0.0.1:{front}/readyz", folder / "router" / "envoy.log")
                body = json.dumps({"instances": [{"size": 50.0, "rooms": 2.0}]})
                cpu = min(os.sched_getaffinity(0))
                differences, asked, envoy = [], 0.0, psutil.Process(process.pid)
                before = envoy.cpu_times()
                for _ in range(_ROUNDS):
                    direct, routed = (
                        closed_loop(f"http://127.0.0.1:{at}/predict", body, connections=1, seconds=_SECONDS, cpu=cpu)
                        for at in (port, front)
                    )
                    assert direct.errors == routed.errors == 0
                    differences.append(routed.p50 - direct.p50)
                    asked += routed.rate * _SECONDS
                after, memory = envoy.cpu_times(), envoy.memory_info().rss / 2**20
                busy = 1e6 * (after.user + after.system - before.user - before.system) / asked
            finally:
                process.end()
    return [
        Row(
            case="router: added at p50",
            contestant="fairlead",
            value=statistics.median(differences),
            unit="ms",
            goal="<= 0.35",
        ),
        Row(case="router: CPU of a request", contestant="fairlead", value=busy, unit="us"),
        Row(case="router: resident", contestant="fairlead", value=memory, unit="MiB"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="rollouts of each simulated case")
    parser.add_argument("--only", choices=("decisions", "reactions", "router"))
    options = parser.parse_args()
    parts = {
        "decisions": lambda: decisions(options.rollouts),
        "reactions": lambda: reactions(options.rollouts),
        "router": router,
    }
    rows = [row for name, part in parts.items() if options.only in (None, name) for row in part()]
    return write("rollouts", "make bench-rollouts", rows)


if __name__ == "__main__":
    raise SystemExit(main())
