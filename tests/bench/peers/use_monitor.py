"""One window compared by the platform's monitor: ``python -m tests.bench.peers.use_monitor ROWS REFERENCE INPUTS``."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np

from contracts.baseline import number
from services.monitor.panes import Panes
from services.monitor.reference import Column, column_of
from services.monitor.rules import Rules
from services.monitor.tested import ColumnTests

rows, reference, inputs = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
normal = {f"x{at}": rng.normal(size=reference) for at in range(inputs)}
window = {name: rng.normal(size=rows).tolist() for name in normal}
start = time.process_time()
columns = [column for name in normal if isinstance(column := column_of(name, number(normal[name])), Column)]
tests = ColumnTests(columns, reference, Rules())
places = np.stack([column.place(window[column.name]) + at for column, at in zip(columns, tests.starts, strict=True)])
panes = Panes(tests.bins, 60)
for pane, some in enumerate(np.array_split(places, 60, axis=1)):
    panes.add(pane, np.bincount(some.ravel(), minlength=tests.bins))
tests.test(panes)
seconds = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sys.stdout.write(json.dumps({"seconds": seconds, "mib": memory}) + "\n")
