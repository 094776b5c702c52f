"""LitServe: one request at a time, or with ``batching`` 32 rows of a model of 5 ms and 0.5 ms a row."""

import sys
import time
from typing import Any

import litserve as ls
from four_floats import Model, answer, rows_of


class Floats(ls.LitAPI):
    def setup(self, device: str) -> None:
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> list[list[float]]:
        return rows_of(request)

    def predict(self, rows: list[list[float]]) -> list[float]:
        return self.model(rows)

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return answer(output)


class Synthetic(ls.LitAPI):
    def setup(self, device: str) -> None: ...

    def decode_request(self, request: dict[str, Any]) -> float:
        return float(request["x"])

    def batch(self, inputs: list[float]) -> list[float]:
        return inputs

    def predict(self, batch: list[float]) -> list[float]:
        time.sleep(0.005 + 0.0005 * len(batch))
        return batch

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, float]:
        return {"y": output}


if __name__ == "__main__":
    if sys.argv[1] == "batching":
        api: ls.LitAPI = Synthetic(api_path="/predict", max_batch_size=32, batch_timeout=0.005)
    else:
        api = Floats(api_path="/predict")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        port=int(sys.argv[-1]), host="127.0.0.1", generate_client_file=False, log_level="warning", num_api_servers=1
    )
