"""BentoML as `bentoml serve` runs it; with ``batching`` its adaptive batching of the synthetic model."""

import os
import sys
import time
from pathlib import Path

import bentoml
from four_floats import Model, answer, rows_of


@bentoml.service
class Floats:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def predict(self, instances: list[dict[str, float]]) -> dict:
        return answer(self.model(rows_of({"instances": instances})))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60000)
    def batched(self, x: list[float]) -> list[float]:
        time.sleep(0.005 + 0.0005 * len(x))
        return x


if __name__ == "__main__":
    home = str(Path(os.environ["BENCH_FOLDER"]) / "bentoml")
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": home}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("bentoml"))
    where = ["--working-dir", str(Path(__file__).parent), "--host", "127.0.0.1", "--port", sys.argv[-1]]
    os.execve(program, ["bentoml", "serve", "use_bentoml:Floats", *where], environment)
