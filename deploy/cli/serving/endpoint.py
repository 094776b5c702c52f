"""One served model as a child process: started, waited for, asked, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from contracts.errors import PlatformError
from deploy.cli.machine.ports import HOST
from deploy.cli.machine.subprocesses import stop_group
from deploy.cli.profiles.log_salt import VARIABLE, home_salt

if TYPE_CHECKING:
    from contracts.bundle import Bundle
    from contracts.endpoints import Endpoints

PATIENCE = 120.0  # seconds until it must be ready, unless it is at work:
_AT_WORK = 0.1  # of a processor, over the seconds of a look, which a service that only waits does not take
_LOOK_SECONDS, _LONGEST_SECONDS = 30.0, 1_800.0
_LONGEST = 100  # characters of a text in an example
# Codes of "not ready" that pass by themselves; any other one is final.
_PASSING = frozenset({"stopped", "loading", "draining"})


class Named(Protocol):
    """What answers report: a model's name and its version in the registry."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...


@dataclass(frozen=True)
class Served:
    """A `Named` where the registry was not asked."""

    name: str
    version: str


class Endpoint:
    """The service of one model version; a context manager that stops it.

    Attributes:
        name, version: what answers report.  bundle: what is served.  log: its JSON lines.
        host: what it listens on.  url: its address, from this machine.
        predictions: where answers are logged, "" for nowhere.
        has_keys: whether clients need an API key.  invented: entity keys of its `example` that are nobody's.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        version: Named,
        bundle: Bundle,
        port: int,
        settings: Mapping[str, Any] | None = None,
        host: str = HOST,
    ) -> None:
        from services.server.addresses import url
        from services.server.launch import serve_command

        self.name, self.version, self.bundle = version.name, version.version, bundle
        self.host, self.port, self.url = host, port, url(host, port)
        self.has_keys = bool((settings or {}).get("keys_file") or os.environ.get("FAIRLEAD_SERVICE_KEYS_FILE"))
        self.invented: tuple[str, ...] = ()
        self._online = endpoints.uri("online") if bundle.document.feature_service else ""
        given = flat(settings or {})
        self.predictions = str(given.get("predictions.folder", endpoints.uri("predictions")))
        hashes = self.predictions or given.get("adapters.folder") or os.environ.get("FAIRLEAD_SERVICE_ADAPTERS__FOLDER")
        if hashes and not (given.get("predictions.salt") or os.environ.get(VARIABLE)):
            given["predictions.salt"] = home_salt(endpoints.path("home"))
        self.log = endpoints.path("home") / "serving" / f"{self.name}-{self.version}-{port}.log"
        self._command = serve_command(
            bundle.document.modality,
            str(bundle.path),
            port=port,
            host=host,
            name=self.name,
            version=self.version,
            online=self._online,
            predictions=self.predictions,
            settings=given,
        )
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; it is not ready yet.

        Raises:
            PlatformError: ``port_in_use``, or ``bad_host``.
        """
        from services.server.addresses import listen

        for bound in listen(self.host, self.port):
            bound.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                list(self._command.argv), env=self._command.env, stdout=log, stderr=log, start_new_session=True
            )

    def wait_ready(self, tell: Callable[[str], None] = lambda reason: None) -> None:
        """Return when it takes traffic; `tell` hears why it does not yet.

        Raises:
            PlatformError: it ended, or refuses its model, or is not ready within `PATIENCE` seconds; one that is at
                work then, as with weights that are large for the machine, has until `_LONGEST_SECONDS`.
        """
        from deploy.cli.machine.subprocesses import processor_seconds

        start, reason = time.monotonic(), "starting"
        look, took = start, 0.0
        while True:
            now = time.monotonic()
            if now - look >= min(_LOOK_SECONDS, PATIENCE):
                before, took = took, processor_seconds(self.pid)
                idle = took - before < _AT_WORK * (now - look)
                look = now
                if now - start >= (PATIENCE if idle else _LONGEST_SECONDS):
                    break
            self._check_alive()
            problem = self.not_ready()
            if problem is None:
                return
            if problem["code"] not in _PASSING | {""}:
                raise self._refused(problem)
            reason = problem["title"]
            tell(reason)
            time.sleep(0.05)
        raise self._failed(f"still not ready after {now - start:.0f} s: {reason}")

    def example(self) -> dict[str, Any]:
        """A request that it understands: the form from its own documentation, values of a golden example.

        Entity keys are ones that the online store has, at a moment at which their features are served; those of which
        there are none are `invented`.
        """
        document = self._documentation()
        if document is None:  # it wants a key that we have not: all inputs of the model are understood in any case
            return {"instances": [next(self.bundle.golden()).inputs]}
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        example: dict[str, Any] = content.get("example") or content["schema"]["example"]
        # The beginning of a file is no file: of those the document's own example stays.
        texts = {item.name for item in self.bundle.document.signature.inputs if item.dtype != "bytes"}
        golden = {name: value for name, value in next(self.bundle.golden()).inputs.items() if name in texts}
        for instance in example["instances"]:
            instance.update({name: _short(golden[name]) for name in instance if golden.get(name) is not None})
            self._known(instance)
        return example

    def _known(self, instance: dict[str, Any]) -> None:
        """Give `instance` the keys of an entity that is online, when it has entity keys."""
        from deploy.cli.serving.example_entity import stored_entity

        signature = self.bundle.document.signature
        asked = tuple(name for name in signature.entities if name in instance)
        plan = self.bundle.read_json("features.json") if asked and self._online else None
        entity = stored_entity(plan, self._online) if plan else None
        self.invented = asked if entity is None else tuple(name for name in asked if name not in entity.keys)
        if entity is not None:
            instance.update({name: entity.keys[name] for name in asked if name in entity.keys})
            if signature.timestamp in instance:
                instance[signature.timestamp] = f"{entity.moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

    def wait(self) -> int:
        """Wait until the process ends by itself; its exit code."""
        assert self._child is not None
        return self._child.wait()

    def stop(self) -> None:
        """End it; answers in flight are finished."""
        if self._child is not None:
            stop_group(self._child, patience=35.0)
            self._child = None

    @property
    def grpc(self) -> tuple[str, int] | None:
        """Where it takes gRPC: host and port; None: nowhere.

        Raises:
            PlatformError: a setting is wrong.
        """
        from services.server.lifecycle import MODALITIES
        from services.settings import load_settings

        settings = load_settings(self._command.env, MODALITIES.get(self.bundle.document.modality).settings)
        return (settings.grpc_host, settings.grpc_port) if settings.grpc_port else None

    @property
    def pid(self) -> int | None:
        """Number of the process while it runs."""
        return self._child.pid if self._child else None

    def _documentation(self) -> Any:
        """The OpenAPI document; None when it takes an API key that FAIRLEAD_API_KEY does not hold."""
        key = os.environ.get("FAIRLEAD_API_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            request = urllib.request.Request(f"{self.url}/openapi.json", headers=headers)
            with urllib.request.urlopen(request, timeout=5) as response:
                return json.load(response)
        except urllib.error.HTTPError as err:
            if err.code != 401:
                raise
            return None

    def not_ready(self) -> dict[str, str] | None:
        """None when ready, otherwise code ("" when it does not answer), title, detail and fix."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return None
        except urllib.error.HTTPError as err:
            return _problem(err.read())
        except OSError:
            return _problem(b"")

    def _check_alive(self) -> None:
        if self._child is None or self._child.poll() is not None:
            code = None if self._child is None else self._child.returncode
            raise self._failed(f"the process ended with exit code {code}: {tail(self.log)}")

    def _failed(self, detail: str) -> PlatformError:
        return PlatformError(
            f"could not serve {self.name}:{self.version}",
            detail=detail,
            fix=f"see its log: {self.log}",
            code="not_served",
        )

    def _refused(self, problem: dict[str, str]) -> PlatformError:
        return PlatformError(
            f"{self.name}:{self.version} is not ready: {problem['title']}",
            detail=problem["detail"],
            fix=problem["fix"] or f"see its log: {self.log}",
            code=problem["code"].replace("-", "_"),
        )


def flat(settings: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys: ``{"predictions": {"sample": 1}}`` is ``{"predictions.sample": 1}``."""
    made: dict[str, Any] = {}
    for key, value in settings.items():
        made |= flat(value, f"{at}{key}.") if isinstance(value, Mapping) else {f"{at}{key}": value}
    return made


def tail(file: Path, characters: int = 600) -> str:
    """The end of a text file."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()[-characters:] or "nothing was logged"
    except OSError as err:
        return str(err)


def _short(value: Any) -> Any:
    return f"{value[:_LONGEST]}..." if isinstance(value, str) and len(value) > _LONGEST else value


def _problem(body: bytes) -> dict[str, str]:
    try:
        document = json.loads(body)
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    given = {key: str(document.get(key) or "") for key in ("type", "title", "detail", "fix")}
    return {
        **given,
        "code": given["type"].rpartition(":")[2],
        "title": given["title"] or "the port does not answer yet",
    }
