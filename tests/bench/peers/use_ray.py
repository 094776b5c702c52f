"""Ray Serve: one deployment with one replica."""

import logging
import sys
import time
from typing import Any

import ray
from four_floats import Model, answer, rows_of
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
class Floats:
    def __init__(self) -> None:
        self.model = Model()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return answer(self.model(rows_of(await request.json())))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    deployment: Any = Floats
    serve.run(deployment.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
