"""The cluster as kubectl shows it: the workflows and pods of the stand-in's runs, nodes, and what a test adds."""

from __future__ import annotations

import ast
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests import argo_documents
from tests.argo import node_id
from tests.kfp_api import Api

_KINDS = {
    "Workflow": ("workflow", "workflows", "wf", "workflows.argoproj.io", "workflow.argoproj.io"),
    "Pod": ("pod", "pods", "po"),
    "Node": ("node", "nodes", "no"),
    "Event": ("event", "events", "ev"),
    "Secret": ("secret", "secrets"),
    "Service": ("service", "services", "svc"),
    "ConfigMap": ("configmap", "configmaps", "cm"),
    "Deployment": ("deployment", "deployments", "deploy", "deployments.apps"),
    "PriorityClass": ("priorityclass", "priorityclasses", "pc"),
    "ScheduledWorkflow": ("scheduledworkflow", "scheduledworkflows", "swf"),
}
_WITH_VALUE = (
    *("--context", "--namespace", "-n", "-l", "--selector", "-o", "--output", "-c", "--container", "--type"),
    "-p",
    "--patch",
    "--tail",
    "--since",
    "--since-time",
    "--field-selector",
    "-f",
    "--filename",
    "--request-timeout",
)

SCRIPT = """
import sys, _signal, _socket  # json, os and socket would double the time that the program takes

_signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)


def ask(argv):
    given = sys.stdin.read() if "-" in argv else ""
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    connection.connect(ADDRESS)
    connection.sendall(ascii([argv, given]).encode() + b"\\n")
    with open(connection.fileno(), "rb") as answer:
        for head in answer:
            kind, *numbers = head.decode().split()
            numbers = [int(number) for number in numbers]
            yield kind, answer.read(numbers[0]).decode() if kind in ("out", "err") else numbers


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(_socket.SHUT_WR)
    except OSError:
        pass


def forward(target, wanted):
    import os, socket, threading

    listener = socket.create_server(("127.0.0.1", wanted))
    print(f"Forwarding from 127.0.0.1:{listener.getsockname()[1]} -> {target}", flush=True)
    while True:
        near, _ = listener.accept()
        print(f"Handling connection for {wanted}", flush=True)
        try:
            far = socket.create_connection(("127.0.0.1", target))
        except OSError:
            print("error: lost connection to pod", file=sys.stderr, flush=True)
            os._exit(1)
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


try:
    for kind, said in ask(sys.argv[1:]):
        if kind == "forward":
            forward(*said)
        elif kind == "code":
            sys.exit(*said)
        else:
            print(said, end="", flush=True, file=sys.stdout if kind == "out" else sys.stderr)
except KeyboardInterrupt:
    sys.exit(130)
except OSError:
    sys.exit("Unable to connect to the server: net/http: TLS handshake timeout")
"""


def parsed(line: bytes) -> tuple[list[str], str]:
    """The arguments of the program and what it was given on its input."""
    argv, given = ast.literal_eval(line.decode())
    return argv, given


def framed(part: Mapping[str, Any]) -> bytes:
    """A part of an answer as the program reads it."""
    made = b""
    for kind in ("out", "err"):
        if text := part.get(kind, "").encode():
            made += f"{kind} {len(text)}\n".encode() + text
    if "forward" in part:
        made += "forward {} {}\n".format(*part["forward"]).encode()
    if "code" in part:
        made += f"code {part['code']}\n".encode()
    return made


def node(name: str = "node-1", cpu: str = "2", memory: str = "3900Mi", **allocatable: str) -> dict[str, Any]:
    """A node of the cluster as kubectl shows it."""
    has = {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "50Gi", **allocatable}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    status = {"allocatable": has, "capacity": has, "conditions": [ready]}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": status,
    }


@dataclass
class Kubectl:
    """Answers kubectl.

    Attributes:
        objects: more than the runs' own: nodes, events, Secrets.  forwards: port of this machine by Service; 0 when it
        has no pod that runs.  fails: what each call says instead of its answer (a lost network); "" when there is none.
        answers: other commands by their first words: ``{"auth can-i": lambda argv, given: "yes"}``.
        calls: time and arguments of each.
    """

    api: Api
    address: Any = ()
    objects: list[dict[str, Any]] = field(default_factory=lambda: [node()])
    forwards: dict[str, int] = field(default_factory=dict)
    fails: str = ""
    answers: dict[str, Callable[[list[str], str], str]] = field(default_factory=dict)
    calls: list[tuple[float, list[str]]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def answer(self, argv: list[str], given: str) -> Iterator[dict[str, Any]]:
        """Parts of the answer: out and err as they come, code at the end; forward: a port to listen for."""
        self.calls.append((time.monotonic(), argv))
        self.api.look()
        words, options = _parse(argv)
        if self.fails:
            yield {"err": f"{self.fails}\n", "code": 1}
            return
        try:
            for start, known in self.answers.items():
                if words[: len(start.split())] == start.split():
                    yield {"out": known(argv, given), "code": 0}
                    return
            yield from getattr(self, "_" + words[0].replace("-", "_"), self._unknown)(words[1:], options)
        except LookupError as err:
            yield {"err": f"{err.args[0]}\n", "code": 1}

    def shown(self) -> list[dict[str, Any]]:
        """Every object that exists now."""
        found = []
        for run in list(self.api.runs.values()):
            t = run.now()
            if argo_documents.there(run.scenario, t):
                found += [argo_documents.workflow(run.scenario, t), *argo_documents.pods(run.scenario, t)]
        return found + self.objects

    def _get(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        kinds = [_kind(word) for word in words[0].partition("/")[0].split(",")]
        names = words[1:] + ([words[0].partition("/")[2]] if "/" in words[0] else [])
        found = [each for each in self.shown() if each["kind"] in kinds]
        if names:
            found = [each for each in found if each["metadata"]["name"] in names]
            if not found and "--ignore-not-found" not in options:
                raise LookupError(f'Error from server (NotFound): {words[0]} "{names[0]}" not found')
        selector = options.get("-l") or options.get("--selector") or ""
        found = [each for each in found if _selected(each["metadata"].get("labels") or {}, selector)]
        found = [each for each in found if _fields(each, options.get("--field-selector", ""))]
        if len(names) == 1:
            yield {"out": json.dumps(found[0]) if found else "", "code": 0}
            return
        yield {"out": json.dumps({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}), "code": 0}

    def _logs(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        name = words[0].removeprefix("pod/")
        follows = "--follow" in options or "-f" in options
        sent = 0
        tail = int(options.get("--tail", -1))
        while True:
            found = [each for each in self.shown() if each["kind"] == "Pod" and each["metadata"]["name"] == name]
            if not found:
                if sent:
                    yield {"code": 0}
                    return
                raise LookupError(f'Error from server (NotFound): pods "{name}" not found')
            status = found[0]["status"]
            state = next((each["state"] for each in status.get("containerStatuses", [])), {"waiting": {}})
            if "waiting" in state:
                why = state["waiting"].get("reason", "PodInitializing")
                raise LookupError(
                    f'Error from server (BadRequest): container "main" in pod "{name}" is waiting to start: {why}'
                )
            run = self.api.runs[found[0]["metadata"]["labels"]["pipeline/runid"]]
            text = argo_documents.log(run.scenario, name, run.now())
            if "--timestamps" in options:
                text = _stamped(text, options.get("--since-time", ""))
            if sent == 0 and tail >= 0:
                text_shown = "".join(text.splitlines(keepends=True)[-tail:]) if tail else ""
            else:
                text_shown = text[sent:]
            sent = len(text)
            if text_shown:
                yield {"out": text_shown}
            if "terminated" in state or not follows or self.fails or self.stopped.wait(0.05):
                yield {"code": 1, "err": f"{self.fails}\n"} if self.fails else {"code": 0}
                return

    def _patch(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        kind, _, name = words[0].partition("/")
        name = name or words[1]
        patch = json.loads(options.get("-p") or options.get("--patch") or "{}")
        found = [run for run in self.api.runs.values() if run.scenario.workflow == name]
        if _kind(kind) != "Workflow" or not found:
            raise LookupError(f'Error from server (NotFound): {kind} "{name}" not found')
        spec = patch.get("spec", {})
        if spec.get("shutdown") in ("Terminate", "Stop") or spec.get("activeDeadlineSeconds") == 0:
            self.api.cancel(found[0])
        yield {"out": f"workflow.argoproj.io/{name} patched\n", "code": 0}

    def _delete(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        kind, _, name = words[0].partition("/")
        name = name or words[1]
        kept = [each for each in self.objects if (each["kind"], each["metadata"]["name"]) != (_kind(kind), name)]
        if len(kept) == len(self.objects) and "--ignore-not-found" not in options:
            raise LookupError(f'Error from server (NotFound): {kind} "{name}" not found')
        self.objects = kept
        yield {"out": f'{kind} "{name}" deleted\n', "code": 0}

    def _port_forward(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        service = words[0].rpartition("/")[2]
        known = [name for name in self.forwards if service == name or service.endswith(f"-{name}")]
        if not known:
            raise LookupError(f'Error from server (NotFound): services "{service}" not found')
        if not self.forwards[known[0]]:
            raise LookupError("error: unable to forward port because pod is not running. Current status=Pending")
        yield {"forward": [self.forwards[known[0]], int(words[1].partition(":")[0] or 0)]}

    def _unknown(self, words: list[str], options: dict[str, str]) -> Iterator[dict[str, Any]]:
        yield {"err": f"error: unknown command (the stand-in knows no such one): {' '.join(words)}\n", "code": 1}


def _stamped(text: str, since: str) -> str:
    """Lines with their times, as ``kubectl logs --timestamps`` writes them: to the second where it begins later."""
    stamped = [f"2026-11-27T15:24:{n // 4:02d}.{n % 4}00000000Z {line}" for n, line in enumerate(text.splitlines())]
    return "".join(f"{line}\n" for line in stamped if line[:19] >= since[:19])


def event(run: Any, path: str, reason: str, message: str) -> dict[str, Any]:
    """An Event of Kubernetes about the pod of a node: ``event(stand_in.run, "root.train.executor(0)", ...)``."""
    scenario = run.scenario
    pod = argo_documents.pod_name(scenario.workflow, scenario.node(path))
    about = {"apiVersion": "v1", "kind": "Pod", "name": pod, "namespace": scenario.namespace}
    named = {"name": f"{pod}.{node_id('e', reason)[2:]}", "namespace": scenario.namespace}
    times = {"firstTimestamp": scenario.time(1), "lastTimestamp": scenario.time(1), "count": 1, "type": "Warning"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": named,
        "involvedObject": about,
        "reason": reason,
        "message": message,
        **times,
    }


def _parse(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words and options; -f is a switch of logs and takes a value elsewhere."""
    words: list[str] = []
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or word == "-":
            words.append(word)
        elif equals:
            options[name] = value
        elif word in _WITH_VALUE and not (word == "-f" and words[:1] == ["logs"]):
            options[word] = rest.pop(0) if rest else ""
        else:
            options[word] = ""
    return words, options


def _kind(word: str) -> str:
    found = [kind for kind, names in _KINDS.items() if word.lower() in names]
    if not found:
        raise LookupError(f'error: the server doesn\'t have a resource type "{word}"')
    return found[0]


def _selected(labels: dict[str, str], selector: str) -> bool:
    for part in re.split(r",(?![^(]*\))", selector) if selector else []:
        if found := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*", part):
            values = [value.strip() for value in found[3].split(",")]
            if (labels.get(found[1]) in values) != (found[2] == "in"):
                return False
        elif "!=" in part:
            key, value = part.split("!=")
            if labels.get(key) == value:
                return False
        elif "=" in part:
            key, value = re.split("==?", part)
            if labels.get(key) != value:
                return False
        elif (part.lstrip("!") in labels) == part.startswith("!"):
            return False
    return True


def _fields(document: dict[str, Any], selector: str) -> bool:
    for part in selector.split(",") if selector else []:
        path, value = part.split("=")
        found: Any = document
        for key in path.split("."):
            found = (found or {}).get(key)
        if found != value:
            return False
    return True
