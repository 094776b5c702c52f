"""One window compared by NannyML, in ``build/peers/nannyml``: ``use_nannyml ROWS REFERENCE INPUTS``."""

from __future__ import annotations

import json
import resource
import sys
import time

import nannyml
import numpy as np
import pandas as pd

rows, reference, inputs = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
normal = pd.DataFrame({f"x{at}": rng.normal(size=reference) for at in range(inputs)})
window = pd.DataFrame({name: rng.normal(size=rows) for name in normal})
start = time.process_time()
calculator = nannyml.UnivariateDriftCalculator(
    column_names=list(normal), continuous_methods=["jensen_shannon"], chunk_number=1
)
calculator.fit(normal)
calculator.calculate(window).to_df()
seconds = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sys.stdout.write(json.dumps({"seconds": seconds, "mib": memory}) + "\n")
