"""The parts of the loop as processes that can be killed, and a Prometheus with the rules of ``helm/monitoring``."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from contracts.ports import free_port
from deploy.cli.machine.kept_processes import KeptProcess
from deploy.cli.machine.subprocesses import stop_group
from deploy.cli.serving.fleet import Notes

ROOT = Path(__file__).resolve().parents[2]
MODEL = "fraud"
PROGRAMS = ("prometheus", "helm")  # beside the extra `rollout`
_PATIENCE = 90.0
T = TypeVar("T")


def until(what: str, look: Callable[[], Any], patience: float = _PATIENCE) -> Any:
    """The first answer of `look` that is something."""
    end = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.2)
    return found


def apart(call: Callable[..., T], *given: Any) -> T:
    """What a call gives in a process of its own: MLflow keeps the database open, which the next scenario replaces."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *given).result()


@dataclass
class Parts:
    """What runs, each part as a person would start it; `day` is how many seconds a day of the replay takes.

    The monitor counts in panes of a day. An alert waits for as much shorter as the replay is faster than its ten
    minutes of usual traffic, which is a day of the replay; expressions and everything else are the chart's.
    """

    home: Path
    day: float
    extra_path: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {name: free_port() for name in ("serve", "monitor", "watch", "prometheus")}
        self.logs = self.home / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._targets = self.home / "prometheus" / "targets.json"
        self._metrics = ""  # of rollouts; a new address with each start

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['serve']}"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(ROOT), self.extra_path]))
        return os.environ | {"FAIRLEAD_HOME": str(self.home), "PYTHONPATH": path, "COLUMNS": "100"}

    def fairlead(self, *words: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """What a command says as JSON, when it ends with one of these codes."""
        command = [sys.executable, "-m", "deploy.cli", *words, "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode not in codes:
            raise RuntimeError(f"fairlead {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def start(self, name: str) -> None:
        """Start a part, or start it again."""
        getattr(self, f"_start_{name}")()

    def kill(self, name: str) -> None:
        """End a part at once; its own processes, such as versions and runs, stay."""
        if name == "envoy":
            note = self.notes.router
            assert note is not None
            KeptProcess(note.pid, note.started).end(now=True)
            return
        child = self.children[name]
        child.send_signal(signal.SIGKILL)
        child.wait()

    def stop(self) -> None:
        """End everything; a run would go on without who asked for it, in the home of the next scenario."""
        for name in ("watch", "monitor", "prometheus", "serve"):
            if name in self.children:
                stop_group(self.children[name])
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if one.uids().real == os.getuid() and one.environ().get("FAIRLEAD_HOME") == str(self.home):
                    one.kill()

    @property
    def notes(self) -> Notes:
        return Notes.model_validate_json((self.home / "rollouts" / MODEL / "processes.json").read_bytes())

    def read(self, *path: str) -> dict[str, Any]:
        """A document of the home that may not be there yet."""
        try:
            found: dict[str, Any] = json.loads(self.home.joinpath(*path).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def _spawn(self, name: str, command: list[str], **environment: str) -> Path:
        log = self.logs / f"{name}.log"
        with log.open("ab") as out:
            out.write(f"--- {time.time():.0f}\n".encode())
            self.children[name] = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
                env=self.environment | environment,
            )  # fmt: skip
        return log

    def _start_serve(self) -> None:
        words = ["serve", MODEL, "--rollouts", "--port", str(self.ports["serve"]), "--json"]
        log = self._spawn("serve", [sys.executable, "-m", "deploy.cli", *words])
        began = log.stat().st_size

        def told() -> str:
            if self.children["serve"].poll() is not None:
                raise RuntimeError(f"not served: {log.read_text()[-2000:]}")
            found = re.search(r'"metrics_url": ?"http://([^/]+)/', log.read_bytes()[began:].decode())
            return found[1] if found else ""

        self._metrics = until("the model is served", told)

    def _start_monitor(self) -> None:
        settings = {
            "predictions": str(self.home / "predictions"),
            "artifacts": str(self.home / "bundles"),
            "models": json.dumps([MODEL]),
            "host": "127.0.0.1",
            "port": str(self.ports["monitor"]),
            "every_seconds": "1",
            "rules__pane_seconds": str(self.day),
            "rules__labels_seconds": str(self.day),
        }
        named = {f"FAIRLEAD_MONITOR_{name.upper()}": value for name, value in settings.items()}
        self._spawn("monitor", [sys.executable, "-m", "services.monitor"], **named)

    def _start_watch(self) -> None:
        where = f"http://127.0.0.1:{self.ports['prometheus']}"
        ports = ["--prometheus", where, "--metrics-port", str(self.ports["watch"])]
        self._spawn("watch", [sys.executable, "-m", "deploy.cli", "watch", MODEL, "--interval", "1", *ports])

    def _start_prometheus(self) -> None:
        folder = self._targets.parent
        if not (folder / "prometheus.yml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _write_rules(folder, self.day)
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
        ]
        self._spawn("prometheus", command)

    def aim(self) -> None:
        """Tell Prometheus whom to ask: the versions that run now, and the parts."""
        addresses = {f"{MODEL}-{version}": note.port for version, note in self.notes.versions.items()}
        addresses |= {name: self.ports[name] for name in ("monitor", "watch")}
        targets = {name: f"127.0.0.1:{port}" for name, port in addresses.items()} | {"rollouts": self._metrics}
        document = [
            {"targets": [target], "labels": {"pod": name, "namespace": "local", "component": name, "release": MODEL}}
            for name, target in targets.items()
        ]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.replace(self._targets)

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts; [] while Prometheus is away."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/alerts", timeout=3) as got:
                found: list[dict[str, Any]] = json.loads(got.read())["data"]["alerts"]
                return found
        except OSError:
            return []

    def server_errors(self, version: str) -> float:
        """Answers 5xx that a version gave by itself, as Prometheus has them."""
        query = f'sum(max_over_time(fairlead_requests_total{{version="{version}",code=~"5.."}}[1h]))'
        address = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(address, timeout=5) as got:
            result = json.loads(got.read())["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0


def _write_rules(folder: Path, day: float) -> None:
    """The chart's rules, with shorter waits, and a configuration that finds its targets in a file."""
    chart = str(ROOT / "helm" / "monitoring")
    done = subprocess.run(
        ["helm", "template", "fairlead", chart, "--set", "mode=prometheus"], capture_output=True, text=True, check=True
    )
    maps = [each["data"] for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "ConfigMap"]
    (data,) = [each for each in maps if "prometheus.yml" in each]
    names = [name for name in data if name != "prometheus.yml"]
    for name in names:
        rules = yaml.safe_load(data[name])
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            if "for" in rule:
                rule["for"] = f"{max(1, round(_seconds(rule['for']) * day / 600))}s"
        (folder / name).write_text(yaml.safe_dump(rules))
    (folder / "targets.json").write_text("[]")
    found = {"job_name": "pods", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    document = {"global": every, "rule_files": names, "scrape_configs": [found]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document))


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


def missing_programs() -> list[str]:
    """What the proof needs and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]
