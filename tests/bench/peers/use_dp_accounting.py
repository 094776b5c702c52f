"""Costs by Google's accountant of privacy losses, in ``build/peers/accounting``: ``use_dp_accounting JSON``.

JSON: {"delta": ..., "releases": [[{"noise", "share", "steps"}, ...], ...]}; prints the epsilon of each list.
"""

from __future__ import annotations

import json
import sys

import dp_accounting as dp
from dp_accounting import pld

asked, found = json.loads(sys.argv[1]), []
for releases in asked["releases"]:
    accountant = pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    for one in releases:
        step = dp.PoissonSampledDpEvent(one["share"], dp.GaussianDpEvent(one["noise"]))
        accountant.compose(dp.SelfComposedDpEvent(step, one["steps"]))
    found.append(accountant.get_epsilon(asked["delta"]))
sys.stdout.write(json.dumps(found) + "\n")
