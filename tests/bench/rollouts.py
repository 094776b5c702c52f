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
from typing import Any, NamedTuple

import numpy as np

from contracts.ports import free_port
from contracts.rollout_policy import RolloutPolicy
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
HELD_AT_FIVE = FROM_FIVE.model_copy(update={"step_seconds": 3600.0})
OURS = "fairlead"
_ROUNDS, _SECONDS = 9, 2.0


class Outcome(NamedTuple):
    """How a simulated rollout went on, and after how many seconds."""

    phase: str
    seconds: float


def one(
    seed: int, champion: Behaviour, candidate: Behaviour, policy: RolloutPolicy, look: float, **more: Any
) -> Outcome:
    """A rollout of two versions."""
    told = {"policy": policy, "per_second": PER_SECOND, "look": look, "longest": LONGEST, **more}
    state, seconds = simulated(seed, champion, candidate, **told)
    return Outcome(state.phase, seconds)


def many(
    count: int, champion: Behaviour, candidate: Behaviour, policy: RolloutPolicy, look: float, **more: Any
) -> list[Outcome]:
    """`count` rollouts, on all cores; `more` as of `simulated`."""
    run = partial(one, champion=champion, candidate=candidate, policy=policy, look=look, **more)
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


def known_rates(count: int, champion: float, candidate: float, policy: RolloutPolicy, longest: int) -> list[float]:
    """Seconds until the sequential probability ratio test, told both shares of errors, would roll back.

    No test that may stop at any time needs fewer requests on average (Wald and Wolfowitz, 1948).
    """
    random, log, took = np.random.default_rng(7), np.zeros(count), np.full(count, np.inf)
    lengths = [max(policy.step_seconds, policy.step_samples * 100 / PER_SECOND / one) for one in policy.weights[:-1]]
    for second in range(1, longest + 1):
        step = min(int(np.searchsorted(np.cumsum(lengths), second)), len(lengths) - 1)
        sent = random.poisson(PER_SECOND, count)
        mine = random.binomial(sent, policy.weights[step] / 100)
        for requests, rate in ((sent - mine, champion), (mine, candidate)):
            middle = ((sent - mine) * champion + mine * candidate) / np.maximum(sent, 1)
            middle = np.where((mine > 0) & (mine < sent), middle, rate)
            hits = random.binomial(requests, rate)
            log += hits * np.log(rate / middle) + (requests - hits) * np.log((1 - rate) / (1 - middle))
        took = np.where((log >= np.log(1 / policy.wrong_refusal)) & np.isinf(took), second, took)
    return [float(each) for each in took]


def decisions(count: int) -> list[Row]:
    """Shares of wrong decisions, looked at every 5 s, and the time to promote."""
    rows = []
    equal = Behaviour(errors=0.005)
    for case, candidate in (
        ("equal version, 0.5 % errors", equal),
        ("trained with another seed, scores 0.006 higher", equal._replace(shift=0.006)),
    ):
        found = many(count, equal, candidate, POLICY, 5.0)
        refused = 100 * statistics.mean(each.phase == "rolled_back" for each in found)
        rows.append(Row(case=f"{case}: refused", contestant=OURS, value=refused, unit="%", goal="<= 1"))
        took = [each.seconds for each in found if each.phase == "settling"]
        rows.append(Row(case=f"{case}: to 100 %, median", contestant=OURS, value=statistics.median(took), unit="s"))
    found = many(count, equal, Behaviour(errors=0.025), POLICY, 5.0)
    promoted = 100 * statistics.mean(each.phase != "rolled_back" for each in found)
    case = "2 points worse than 0.5 %: not rolled back"
    return [*rows, Row(case=case, contestant=OURS, value=promoted, unit="%", goal="<= 1")]


def reactions(count: int) -> list[Row]:
    """Time until a version that errs is rolled back, looked at every second."""
    rows = []
    for case, base, errors, policy, goal in (
        ("10 % errors, from 5 %", 0.001, 0.1, FROM_FIVE, 60),
        ("10 % errors, held at 5 %", 0.001, 0.1, HELD_AT_FIVE, 60),
        ("1 point more than 0.1 %, from 1 %", 0.001, 0.011, POLICY, 600),
        ("1 point more than 1 %, from 1 %", 0.01, 0.02, POLICY, 600),
    ):
        found = many(count, Behaviour(errors=base), Behaviour(errors=errors), policy, 1.0)
        rows += _times(case, found, goal)
        best = known_rates(count, base, errors, policy, 2 * goal)
        inside = 100 * statistics.mean(each <= goal for each in best)
        rows.append(Row(case=f"{case}: in time", contestant="a test that knows both rates", value=inside, unit="%"))
        peer = [flagger(seed, errors) for seed in range(count)]
        middle = float(np.quantile(peer, 0.5, method="inverted_cdf"))
        value = middle if middle != float("inf") else float("nan")
        rows.append(Row(case=f"{case}: rolled back, median", contestant="Flagger's defaults", value=value, unit="s"))
        kept = 100 * statistics.mean(each == float("inf") for each in peer)
        rows.append(Row(case=f"{case}: promoted", contestant="Flagger's defaults", value=kept, unit="%"))
    return rows


def answers(count: int) -> list[Row]:
    """Time until a version is rolled back whose answers are the worse ones, at the same share of errors."""
    rows = []
    for case, champion, candidate in (
        ("scores 0.1 higher, most below 0.1", Behaviour(score=(0.3, 6)), Behaviour(score=(0.3, 6), shift=0.1)),
        ("scores 0.1 higher, about 0.3", Behaviour(), Behaviour(shift=0.1)),
        ("scores 0.1 higher, about 0.5", Behaviour(score=(2, 2)), Behaviour(score=(2, 2), shift=0.1)),
        (
            "10 points more wrong answers, a third labelled at once",
            Behaviour(wrong=0.05, labelled=1 / 3),
            Behaviour(wrong=0.15, labelled=1 / 3),
        ),
    ):
        rows += _times(case, many(count, champion, candidate, POLICY, 2.0), 600)
    for seconds in (0, 60):
        champion = Behaviour(errors=0.001, labelled=1.0, late=seconds // 5, rare=0.008, missed=0.4, wrong=0.004)
        found = many(
            count, champion, champion._replace(missed=0.9), POLICY, 5.0, per_second=100, warm=True, before=90_000
        )
        rows += _times(f"a class of 0.8 %: recall 0.6 to 0.1, 100/s, labels after {seconds} s", found, 600)
    return rows


def _times(case: str, found: list[Outcome], goal: int) -> list[Row]:
    """How long rollbacks took, and how many came in time."""
    seconds = [each.seconds if each.phase == "rolled_back" else float("inf") for each in found]
    inside = 100 * statistics.mean(each <= goal for each in seconds)
    quantiles = np.quantile(seconds, [0.5, 0.95], method="inverted_cdf")
    middle, late = np.where(np.isfinite(quantiles), quantiles, np.nan).tolist()
    return [
        Row(case=f"{case}: rolled back, median", contestant=OURS, value=middle, unit="s", goal=f"<= {goal}"),
        Row(case=f"{case}: rolled back, p95", contestant=OURS, value=late, unit="s"),
        Row(case=f"{case}: in time", contestant=OURS, value=inside, unit="%"),
    ]


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
            made.write(routing, routing)
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
            contestant=OURS,
            value=statistics.median(differences),
            unit="ms",
            goal="<= 0.35",
        ),
        Row(case="router: CPU of a request", contestant=OURS, value=busy, unit="us"),
        Row(case="router: resident", contestant=OURS, value=memory, unit="MiB"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, help="rollouts of each simulated case")
    parser.add_argument("--only", choices=("decisions", "reactions", "answers", "router"))
    options = parser.parse_args()
    parts = {
        "decisions": lambda: decisions(options.rollouts),
        "reactions": lambda: reactions(options.rollouts),
        "answers": lambda: answers(options.rollouts),
        "router": router,
    }
    rows, status = [], 0
    for name, part in parts.items():
        if options.only in (None, name):
            rows += part()
            status = write("rollouts", "make bench-rollouts", rows)  # a part takes minutes: what is known is shown
    return status


if __name__ == "__main__":
    raise SystemExit(main())
