"""The platform from Python: what the command line does, with results that a notebook shows as tables and plots.

>>> import fairlead                                     # doctest: +SKIP
>>> run = fairlead.run("fraud", recipe="logistic")      # doctest: +SKIP
>>> with fairlead.serve(run.model) as endpoint:         # doctest: +SKIP
...     endpoint.predict(endpoint.example(), explain=True)

Every function takes ``profile=``, a name below ``deploy/env/`` or a YAML file; by default FAIRLEAD_CLI_PROFILE, else
``local``. Its home is found as the command line finds it: in the current folder, or in a folder above. What fails is a
`PlatformError`, which says what to do. Importing this loads nothing but the standard library: each function imports
what it needs.
"""

from __future__ import annotations

import logging

from contracts.errors import PlatformError
from fairlead.feature_store import feature_view, features
from fairlead.guard import home
from fairlead.monitoring import DriftReport, Rollout, audit, monitor, roll_out, rollouts
from fairlead.planning import Federation, Plan, Search, federate, plan, search
from fairlead.registry import Comparison, Model, compare, model, models, promote, rollback
from fairlead.serving import Encrypted, Predictions, Service, encrypted, predict, serve
from fairlead.tables import Listing, Page, Plots
from fairlead.training import Run, get_run, run, runs, tasks

# What parts of the platform log goes where the program says, and nowhere by itself.
logging.getLogger("fairlead").addHandler(logging.NullHandler())

__all__ = [
    "Comparison",
    "DriftReport",
    "Encrypted",
    "Federation",
    "Listing",
    "Model",
    "Page",
    "Plan",
    "PlatformError",
    "Plots",
    "Predictions",
    "Rollout",
    "Run",
    "Search",
    "Service",
    "audit",
    "compare",
    "encrypted",
    "feature_view",
    "features",
    "federate",
    "get_run",
    "home",
    "model",
    "models",
    "monitor",
    "plan",
    "predict",
    "promote",
    "roll_out",
    "rollback",
    "rollouts",
    "run",
    "runs",
    "search",
    "serve",
    "tasks",
]
