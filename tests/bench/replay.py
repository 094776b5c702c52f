"""The closed loop on the real fraud months, replayed at speed: ``make bench-loop-closed ARGS="--only stationary"``.

Each scenario has a home of its own with the parts that a person starts: the endpoint with its router, the monitor, the
loop, and a Prometheus with the rules of ``helm/monitoring``. It needs FAIRLEAD_TEST_DATA, prometheus and helm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from contracts.errors import PlatformError
from tests.bench import report
from tests.bench.replay_bad import BAD, rolled_back
from tests.bench.replay_parts import missing_programs
from tests.bench.replay_story import Stage, drifts, resists, stationary
from tests.bench.replay_world import CHANGES, read_months
from tests.bench.report import Row


def scenarios() -> dict[str, Callable[[Stage], list[Row]]]:
    """All scenarios by name."""
    found: dict[str, Callable[[Stage], list[Row]]] = {"stationary": stationary}
    found |= {name: partial(drifts, name=name) for name in CHANGES}
    found |= {name: partial(rolled_back, name=name) for name in BAD}
    found["kills"] = resists
    return found


def main() -> int:
    known = scenarios()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(known), help="may be given again")
    parser.add_argument("--day", type=float, default=6.0, help="seconds that a day of the months takes")
    parser.add_argument("--keep", type=Path, help="folder for homes and logs; they stay there")
    options = parser.parse_args()
    given = os.environ.get("FAIRLEAD_TEST_DATA", "")
    if not given:
        sys.stderr.write("skipped: FAIRLEAD_TEST_DATA names no folder with the fraud months\n")
        return 0
    if missing := missing_programs():
        sys.stderr.write(f"skipped: not on PATH: {', '.join(missing)}\n")
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # ends the parts, too
    months, rows, events = read_months(Path(given)), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only or known:
            folder = options.keep or Path(scratch)
            stage = Stage(folder, months, options.day)
            ended = 1
            try:
                rows += known[name](stage)
            except (AssertionError, RuntimeError, TimeoutError, PlatformError) as err:
                stage.tell(f"not as it should be: {err}")
                ended = 0
            finally:
                events[name] = stage.events
                stage.close()
                rows.append(
                    Row(case=f"{name}: ended as it should", contestant="fairlead", value=ended, unit="", goal=">= 1")
                )
                shutil.copytree(stage.parts.logs, folder / "logs" / name.replace(" ", "-"), dirs_exist_ok=True)
    code = report.write("replay", "make bench-loop-closed", rows)
    (report.FOLDER / "replay-events.json").write_text(json.dumps(events, indent=1) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
