"""Data of a company's size: ``make bench-scale [ARGS="mongodb engine"]``.

mongodb: 100,000 nested documents become a dataset version, beside the driver that only fetches and decodes them, turn
by turn on one server. The server is the one of the tests; what it takes is in both, so the difference is ours. Every
source is also looked through for personal data, which is shown by itself.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.report import Row, write
from tests.bench.scale_engine import engine

DOCUMENTS, TURNS = 100_000, 5


class Seconds(NamedTuple):
    """On the clock, and of this process's processor."""

    clock: float
    processor: float


def mongodb(folder: Path) -> Iterator[Row]:
    """Documents a second of the driver, of a dataset version, and of what is ours of that."""
    from pipelines.data.personal import PersonalData
    from tests.mongo_server import MongoServer

    looked: list[Seconds] = []
    reads: Any = PersonalData
    apply = reads.apply

    def timed(self: Any, chunk: Any) -> Any:
        found: list[Any] = []
        looked.append(_seconds(lambda: found.append(apply(self, chunk))))
        return found[0]

    server = MongoServer(folder / "mongo")
    took: dict[str, list[Seconds]] = {"driver": [], "version": [], "personal data": []}
    try:
        with server.database() as shop:
            for start in range(0, DOCUMENTS, 10_000):
                shop.payments.insert_many([_payment(number) for number in range(start, start + 10_000)])
        reads.apply = timed
        for turn in range(TURNS):
            looked.clear()
            took["driver"].append(_seconds(lambda: _fetched(server)))
            took["version"].append(_seconds(partial(_version, server, folder / f"home-{turn}")))
            took["personal data"].append(Seconds(sum(s.clock for s in looked), sum(s.processor for s in looked)))
    finally:
        reads.apply = apply
        server.stop()
    for what, goal in (("clock", ""), ("processor", ">= 30000")):
        driver, version, search = ([getattr(each, what) for each in took[name]] for name in took)
        ours = [whole - bare - found for whole, bare, found in zip(version, driver, search, strict=True)]
        parts = {"driver": driver, "version": version, "its search for personal data": search}
        for name, found in {**parts, "fairlead: version without that, beyond the driver": ours}.items():
            rate = DOCUMENTS / max(statistics.median(found), 1e-9)
            case = f"{DOCUMENTS:,} nested documents, by the {what}"
            yield Row(case=case, contestant=name, value=rate, unit="documents/s", goal=goal if found is ours else "")


def _payment(number: int) -> dict[str, Any]:
    """A document with three levels, a list, an id, a moment and a decimal."""
    from bson import Decimal128, ObjectId

    chance = random.Random(number)
    return {
        "_id": ObjectId(f"{number:024x}"),
        "text": {"title": f"Payment {number} of shop {number % 977}", "body": "paid by card, " * chance.randint(2, 12)},
        "customer": {"id": f"C{number % 5_000:06d}", "address": {"zip": f"{number % 99_999:05d}", "country": "DE"}},
        "amount": Decimal128(f"{chance.randint(1, 99_999)}.{number % 100:02d}"),
        "risk": chance.random(),
        "items": [{"sku": f"S{chance.randint(0, 999)}", "count": 1}, {"sku": "S7", "count": 2}],
        "at": datetime(2024, 1, 1) + timedelta(seconds=number),
        "refunded": number % 50 == 0,
        "label": str(number % 4),
        **({"note": "seldom"} if number % 9 == 0 else {}),
    }


def _seconds(work: Any) -> Seconds:
    start, busy = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - start, time.process_time() - busy)


def _fetched(server: Any) -> None:
    with server.database() as shop:
        assert sum(1 for _ in shop.payments.find().sort("_id", 1).batch_size(4_096)) == DOCUMENTS


def _version(server: Any, home: Path) -> None:
    """What the step ingest does, with its events left out of the terminal."""
    from pipelines.steps.ingest import ingest
    from pipelines.task import dump_config
    from pipelines.tasks import get_task, recipe_config

    columns = {"id": "_id", "title": "text.title", "content": "text.body", "category": "label"}
    names = {f"data.columns.{name}": at for name, at in columns.items()}
    config = dump_config(recipe_config(get_task("news"), None, names))
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        ingest("news", config, server.address("payments"), str(home / "data"), str(home / "manifest.json"))


PARTS = {"mongodb": mongodb, "engine": engine}


def main() -> int:
    asked = sys.argv[1:] or list(PARTS)
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as name:
        rows = [row for part in asked for row in PARTS[part](Path(name))]
    return write("scale", f"make bench-scale ARGS='{' '.join(asked)}'", rows)


if __name__ == "__main__":
    raise SystemExit(main())
