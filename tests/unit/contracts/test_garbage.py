"""Searches for garbage are rare, and are still made."""

from __future__ import annotations

import subprocess
import sys

ASKED = """
import gc, weakref
from contracts.garbage import collect_rarely

class Cycle:
    def __init__(self):
        self.own = self

collect_rarely()
searches = sum(each["collections"] for each in gc.get_stats())
first = weakref.ref(Cycle())
kept = [[number] for number in range(40_000)]
few = sum(each["collections"] for each in gc.get_stats()) - searches
kept += [[number] for number in range(60_000)]
print(few, first() is None)
"""


def test_they_are_rare_and_find_what_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    few, found = done.stdout.split()
    assert int(few) <= 1
    assert found == "True"
