"""One window compared by Evidently, in ``build/peers/evidently``: ``use_evidently ROWS REFERENCE INPUTS``."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

rows, reference, inputs = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
normal = pd.DataFrame({f"x{at}": rng.normal(size=reference) for at in range(inputs)})
window = pd.DataFrame({name: rng.normal(size=rows) for name in normal})
start = time.process_time()
Report([DataDriftPreset(method="psi")]).run(window, normal).dict()
seconds = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sys.stdout.write(json.dumps({"seconds": seconds, "mib": memory}) + "\n")
