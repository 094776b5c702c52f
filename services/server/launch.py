"""Starts a model server: ``python -m services.server.launch tabular --port 3000``.

One process with uvloop, and the port closes as soon as draining ends. ``bentoml serve`` runs the same service with a
supervisor, which takes longer to start, needs 70 MiB more and keeps accepting connections while it stops.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.garbage import collect_rarely
from services.server.lifecycle import MODALITIES, Modality
from services.settings import PREFIX, ServiceSettings, load_settings


@dataclass(frozen=True, kw_only=True)
class ServeCommand:
    """How to start a service as a child process: ``subprocess.Popen(list(argv), env=env)``, in any folder."""

    argv: tuple[str, ...]
    env: dict[str, str]


def serve_command(
    modality: str,
    bundle: str,
    *,
    port: int,
    host: str = "127.0.0.1",
    version: str = "",
    name: str = "",
    online: str = "",
    predictions: str = "",
    settings: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServeCommand:
    """The command that serves `bundle`.

    Args:
        host: what it listens on: a name, or an address of either family; ``::`` and ``localhost`` mean both.
        version: what answers report, normally the registry's version.
        online: the online store's file; empty: features come in the request.
        predictions: folder of the prediction log; empty: none.
        settings: any other key of ServiceSettings, dotted, for example ``{"predictions.sample": 0.1}``.

    Raises:
        PlatformError: nothing serves this modality.
    """
    MODALITIES.get(modality)
    named = {"name": name, "version": version, "online": online, "predictions.folder": predictions}
    keys = {**(settings or {}), "bundle": bundle, **{key: value for key, value in named.items() if value}}
    env = {key: value for key, value in (environ or os.environ).items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    # Values are read as YAML; JSON keeps a version such as "1e5" a string.
    env |= {PREFIX + key.upper().replace(".", "__"): json.dumps(value) for key, value in keys.items()}
    env["BENTOML_DO_NOT_TRACK"] = "true"
    env.setdefault("OMP_NUM_THREADS", "1")
    argv = (sys.executable, "-m", "services.server.launch", modality, "--host", host, "--port", str(port))
    return ServeCommand(argv=argv, env=env)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a service until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(prog="services.server.launch", description=__doc__)
    parser.add_argument("modality", help=f"one of: {', '.join(MODALITIES.names())}")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    options = parser.parse_args(arguments)
    collect_rarely()
    try:
        modality: Modality = MODALITIES.get(options.modality)
        settings = load_settings(kind=modality.settings)
    except PlatformError as err:
        sys.stderr.write(json.dumps({"level": "error", "event": "bad_settings", **err.as_dict()}) + "\n")
        return 2
    return _serve(modality, options.host, options.port, settings)


def _serve(modality: Modality, host: str, port: int, settings: ServiceSettings) -> int:
    # BentoML keeps state in its home; two processes must not share one.
    home = None if "BENTOML_HOME" in os.environ else tempfile.mkdtemp(prefix="fairlead-bentoml-")
    if home:
        os.environ["BENTOML_HOME"] = home
    try:
        import uvicorn

        from services.server.addresses import listen
        from services.server.bento import served_app
        from services.server.protocol import impatient

        config = uvicorn.Config(
            served_app(modality.make()),
            loop="uvloop",
            http=impatient(settings.header_seconds),
            ws_max_size=settings.max_body_bytes,
            ws_per_message_deflate=False,  # frames are packed already
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=settings.graceful_seconds,
        )
        server = uvicorn.Server(config)
        # uvicorn raises the signals that it got once more after a clean shutdown, which is the end we want: status 0.
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        server.run(listen(host, port))
        return 0 if server.started else 3
    except KeyboardInterrupt:
        return 0
    except PlatformError as err:
        sys.stderr.write(json.dumps({"level": "error", "event": "cannot_listen", **err.as_dict()}) + "\n")
        return 3
    finally:
        if home:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
