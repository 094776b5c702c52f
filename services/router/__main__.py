"""Starts the router: ``python -m services.router --port 8080``; settings in ``--file`` or FAIRLEAD_ROUTER_FILE."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import PlatformError
from contracts.garbage import collect_rarely
from contracts.settings import load
from services.logs import configure_logging
from services.router.settings import PREFIX, RouterSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.router", description=__doc__)
    parser.add_argument("--file", default=os.environ.get(f"{PREFIX}FILE", "router.yaml"))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args(arguments)
    collect_rarely()
    configure_logging()
    try:
        settings = load(RouterSettings, Path(options.file), prefix=PREFIX)
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_serve(settings, options.host, options.port))
    except PlatformError as err:
        sys.stderr.write(json.dumps({"level": "error", "event": "ended", **err.as_dict()}) + "\n")
        return 2
    return 0


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(settings: RouterSettings, host: str, port: int) -> None:
    import uvicorn

    from services.router.routes import router_app
    from services.router.runtime import RouterRuntime
    from services.server.addresses import listen
    from services.server.protocol import impatient

    runtime = RouterRuntime(settings)
    await runtime.begin()
    config = uvicorn.Config(
        router_app(runtime), http=impatient(10.0), lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=65, timeout_graceful_shutdown=30,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    await uvicorn.Server(config).serve(listen(host, port))
    await runtime.close()


if __name__ == "__main__":
    raise SystemExit(main())
