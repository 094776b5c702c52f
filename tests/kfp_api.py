"""What the API server of Kubeflow Pipelines 2.17 keeps and answers, in the shape of its recorded answers (v2beta1)."""

from __future__ import annotations

import json
import math
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import yaml

from tests.argo import Scenario, node_id, of_spec
from tests.argo_documents import phase
from tests.kfp_run import Run

NO_RUN = "1970-01-01T00:00:00Z"
_OPERATIONS = {1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS", 6: "LESS_THAN"}
_OPERATIONS |= {7: "LESS_THAN_EQUALS", 8: "IN", 9: "IS_SUBSTRING"}
_CODES = {400: 3, 404: 5, 409: 6, 500: 13}


class RefusedError(Exception):
    """An answer that is not 200; details as the gateway of gRPC writes them."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        code = _CODES[status]
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
        self.status = status
        self.body = {"error": message, "code": code, "message": message, "details": [detail]}


@dataclass
class Api:
    """All objects, and the scenarios of the runs to come: one each, then everything succeeds.

    Attributes:
        scenarios: a Scenario, or a function of the posted pipeline's spec that makes one.
        speed: how much faster than a clock scenarios pass.  lead: see `Run`.
        posted: the last body of each kind, for tests to look at.
        refuses: why the next runs, schedules and pipelines are refused; "" when they are taken.
    """

    scenarios: list[Scenario | Callable[[dict[str, Any]], Scenario]] = field(default_factory=list)
    speed: float = 20.0
    lead: float = math.inf
    namespace: str = "fairlead"
    multi_user: bool = False
    refuses: str = ""
    posted: dict[str, Any] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The document for a request below /apis/v2beta1/.

        Raises:
            RefusedError: it is refused, or there is no such thing.
        """
        kind, _, rest = path.partition("/")
        name, _, verb = rest.partition(":")
        self.look()
        with self.lock:
            if method == "POST":
                self.posted[path if name else kind] = body
                if self.refuses and kind != "experiments" and not verb:
                    raise RefusedError(400, self.refuses)
            maker: Callable[..., Any] | None = getattr(self, f"_{kind}", None)
            if maker is None:
                raise RefusedError(404, f"{method} {path}")
            return maker(method, name, verb, query, body)

    def start(self, body: dict[str, Any], recurring: str = "") -> Run:
        """A run as the API server or a schedule starts it."""
        recurring = recurring or body.get("recurring_run_id", "")
        spec = body.get("pipeline_spec") or self._referred(body)
        ir = spec.get("pipeline_spec", spec)
        given = self.scenarios.pop(0) if self.scenarios else of_spec
        scenario = given if isinstance(given, Scenario) else given(ir)
        run_id = str(uuid.uuid4())
        made = {
            "run_id": run_id,
            "name": body["display_name"],
            "namespace": self.namespace,
            "workflow": f"{ir['pipelineInfo']['name']}-{run_id[:5]}",
            "began": datetime.now(UTC),
        }
        kept = ("display_name", "runtime_config", "service_account", "experiment_id")
        document = {"run_id": run_id, "storage_state": "AVAILABLE", **{key: body[key] for key in kept if key in body}}
        document |= {"pipeline_spec": spec, **({"recurring_run_id": recurring} if recurring else {})}
        if reference := body.get("pipeline_version_reference"):
            document["pipeline_version_reference"] = reference
        run = Run(document, replace(scenario, **made), time.monotonic(), self.speed, self.lead)
        self.runs[run_id] = run
        return run

    def look(self) -> None:
        """Somebody looks at the cluster."""
        for run in list(self.runs.values()):
            run.look()

    def cancel(self, run: Run) -> None:
        """End its workflow now."""
        if run.now() < run.scenario.ends:
            run.scenario = replace(run.scenario, cancelled=run.now())

    # one method for each kind of object

    def _healthz(self, *_: Any) -> Any:
        return {"multi_user": self.multi_user, "pipeline_store": "database"}

    def _experiments(self, method: str, name: str, verb: str, query: dict[str, str], body: Any) -> Any:
        if method == "POST" and not name:
            if any(each["display_name"] == body["display_name"] for each in self.experiments.values()):
                raise RefusedError(409, f"Failed to create experiment: Already exist error: {body['display_name']}")
            made = {"experiment_id": str(uuid.uuid4()), "storage_state": "AVAILABLE", "created_at": _now(), **body}
            self.experiments[made["experiment_id"]] = {**made, "last_run_created_at": NO_RUN}
            return self.experiments[made["experiment_id"]]
        return _kept(self.experiments, "experiments", method, name, query)

    def _runs(self, method: str, name: str, verb: str, query: dict[str, str], body: Any) -> Any:
        if method == "POST" and not name:
            return run_document(self.start(body))
        if not name:
            found = [run_document(run, details=False) for run in self.runs.values()]
            if wanted := query.get("experiment_id"):
                found = [each for each in found if each.get("experiment_id") == wanted]
            return _page("runs", found, query)
        run = _one(self.runs, "run", name)
        if method == "DELETE":
            del self.runs[name]
            return {}
        if verb == "terminate":
            self.cancel(run)
        if verb == "retry":
            self._retry(run)
        return {} if verb else run_document(run)

    def _retry(self, run: Run) -> None:
        """The workflow goes on with what had not succeeded; here: the next scenario, or all of it again and well."""
        if run_document(run, details=False)["state"] not in ("FAILED", "CANCELED"):
            raise RefusedError(400, "Retry run failed: workflow must be Failed/Error to retry")
        given = self.scenarios.pop(0) if self.scenarios else of_spec
        spec = run.document["pipeline_spec"]
        scenario = given if isinstance(given, Scenario) else given(spec.get("pipeline_spec", spec))
        kept = {key: getattr(run.scenario, key) for key in ("run_id", "name", "namespace", "workflow")}
        run.scenario, run.began, run.done = replace(scenario, **kept, began=datetime.now(UTC)), time.monotonic(), 0

    def _recurringruns(self, method: str, name: str, verb: str, query: dict[str, str], body: Any) -> Any:
        if method == "POST" and not name:
            return self._schedule(body)
        if verb in ("enable", "disable"):
            found = _one(self.recurring, "recurring run", name)
            found |= {"mode": verb.upper(), "status": f"{verb.upper()}D", "updated_at": _now()}
            return {}
        if not name:
            wanted = query.get("experiment_id")
            found = [each for each in self.recurring.values() if not wanted or each.get("experiment_id") == wanted]
            return _page("recurringRuns", found, query)
        return _kept(self.recurring, "recurringRuns", method, name, query)

    def _schedule(self, body: dict[str, Any]) -> dict[str, Any]:
        cron = body["trigger"].get("cron_schedule", {}).get("cron", "")
        fields = re.sub(r"^(CRON_)?TZ=\S+\s+", "", cron).split()
        if "cron_schedule" in body["trigger"] and len(fields) not in (5, 6):
            raise RefusedError(400, f"Schedule cron is not supported {cron}")
        made = {"recurring_run_id": str(uuid.uuid4()), **body, "created_at": _now(), "updated_at": _now()}
        made |= {"status": f"{body.get('mode', 'ENABLE')}D", "namespace": self.namespace}
        made["max_concurrency"] = str(body.get("max_concurrency", 1))
        made.setdefault("no_catchup", False)
        self.recurring[made["recurring_run_id"]] = made
        return made

    def fire(self, recurring_run: str) -> Run:
        """Start the next run of a schedule, named as the schedule controller names it."""
        made = self.recurring[recurring_run]
        count = sum(run.document.get("recurring_run_id") == recurring_run for run in self.runs.values()) + 1
        stem = re.sub(r"[^a-z0-9-]", "-", made["display_name"].lower())[:20]
        number = uuid.uuid5(uuid.NAMESPACE_OID, f"{recurring_run}{count}").int % 4294967296
        body = {**made, "display_name": f"{stem}{recurring_run[:9].replace('-', '')}-{count}-{number}"}
        body.pop("service_account", None)
        return self.start(body, recurring_run)

    def _pipelines(self, method: str, name: str, verb: str, query: dict[str, str], body: Any) -> Any:
        if name in ("upload", "upload_version"):
            return self._upload(name, query, body)
        if method == "POST" and not name:
            return self._named_pipeline({**body, "name": body.get("name") or body["display_name"]})
        first, _, rest = name.partition("/")
        if first == "names":
            found = [each for each in self.pipelines.values() if each["name"] == rest]
            if not found:
                raise RefusedError(404, f"pipeline {rest} not found")
            return found[0]
        if rest.startswith("versions"):
            ours = {key: each for key, each in self.versions.items() if each["pipeline_id"] == first}
            version = rest.removeprefix("versions").lstrip("/")
            if method == "DELETE":
                self.versions.pop(version)
                return {}
            return _kept(ours, "pipeline_versions", method, version, query)
        if method == "DELETE" and any(each["pipeline_id"] == first for each in self.versions.values()):
            raise RefusedError(400, f"Failed to delete pipeline as it has existing pipeline versions: {first}")
        return _kept(self.pipelines, "pipelines", method, name, query)

    def _upload(self, name: str, query: dict[str, str], body: bytes) -> Any:
        parts = list(yaml.load_all(body, yaml.CSafeLoader))
        spec = {"pipeline_spec": parts[0], **({"platform_spec": parts[1]} if len(parts) > 1 else {})}
        called = query.get("name") or parts[0]["pipelineInfo"]["name"]
        shown = {"name": called, "display_name": query.get("display_name") or called, "created_at": _now()}
        if text := query.get("description"):
            shown["description"] = text
        if name == "upload":
            pipeline = self._named_pipeline({**shown, "namespace": query.get("namespace", "")})
        else:
            pipeline = _one(self.pipelines, "pipeline", query.get("pipelineid", ""))
            ours = [each for each in self.versions.values() if each["pipeline_id"] == pipeline["pipeline_id"]]
            if any(each["name"] == called for each in ours):
                raise RefusedError(
                    409, f"Pipeline version {called} already exist for pipeline {pipeline['pipeline_id']}"
                )
        version = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": str(uuid.uuid4()), **shown}
        self.versions[version["pipeline_version_id"]] = {**version, "pipeline_spec": spec}
        return pipeline if name == "upload" else self.versions[version["pipeline_version_id"]]

    def _named_pipeline(self, given: dict[str, Any]) -> dict[str, Any]:
        if any(each["name"] == given["name"] for each in self.pipelines.values()):
            raise RefusedError(409, f"The name {given['name']} already exist. Please specify a new name")
        made = {"created_at": _now(), **given, "pipeline_id": str(uuid.uuid4())}
        self.pipelines[made["pipeline_id"]] = made
        return made

    def _referred(self, body: dict[str, Any]) -> dict[str, Any]:
        reference = body.get("pipeline_version_reference", {})
        ours = [each for each in self.versions.values() if each["pipeline_id"] == reference.get("pipeline_id")]
        wanted = reference.get("pipeline_version_id")
        found = [each for each in ours if not wanted or each["pipeline_version_id"] == wanted]
        if not found:
            raise RefusedError(404, f"pipeline version {wanted} not found")
        spec: dict[str, Any] = found[-1]["pipeline_spec"]
        return spec


def run_document(run: Run, details: bool = True) -> dict[str, Any]:
    """A run as GET /runs/ID (with details) or a list shows it."""
    scenario, t = run.scenario, run.now()
    top = scenario.nodes[0]
    began = scenario.time(0)
    ended = t >= top.ends
    history = [{"update_time": began, "state": "PENDING"}] if "recurring_run_id" not in run.document else []
    history.append({"update_time": scenario.time(1), "state": "RUNNING"})
    state = top.phase.upper() if ended else "RUNNING" if t >= 1 else "PENDING"
    if scenario.cancelled <= t and not ended:
        state = "CANCELING"
        history.append({"update_time": scenario.time(scenario.cancelled), "state": state})
    if ended:
        history.append({"update_time": scenario.time(top.ends + 1), "state": state})
    document = {
        **run.document,
        "created_at": began,
        "scheduled_at": began,
        "finished_at": scenario.time(top.ends) if ended else NO_RUN,
        "state": state,
        "state_history": history,
    }
    if details:
        document["run_details"] = {"task_details": _tasks(scenario, t)}
    return document


def _tasks(scenario: Scenario, t: float) -> list[dict[str, Any]]:
    """A nameless row for each success that the cache remembers, and one for each node; none says which pod it is."""
    found = []
    alive = [node for node in scenario.nodes if node.begins <= t]
    names = {node.name for node in alive}
    for node in alive:
        key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{scenario.run_id}{node.name}"))
        row: dict[str, Any] = {"run_id": scenario.run_id, "task_id": key, "create_time": scenario.time(0)}
        times = {"start_time": scenario.time(node.begins), "end_time": "0001-01-01T00:00:00Z"}
        times |= {"end_time": scenario.time(node.ends)} if t >= node.ends else {}
        now = {"Error": "FAILED", "Omitted": ""}.get(phase(node, t), phase(node, t).upper())
        if node.name.endswith(".executor(0)") and node.task and node.task.cacheable and now == "SUCCEEDED":
            number = str(node_id("x", node.name))[-2:]
            found.append({**row, "task_id": key[::-1], **times, "execution_id": number})
        shown = {"display_name": node.name if "." not in node.name else node.name.rpartition(".")[2]}
        history = [{"update_time": scenario.time(min(t, node.ends)), **({"state": now} if now else {})}]
        row |= {**shown, **times, **({"state": now} if now else {}), "state_history": history}
        if children := [{"pod_name": node_id(scenario.workflow, name)} for name in node.children if name in names]:
            row["child_tasks"] = children
        found.append(row)
    return sorted(found, key=lambda row: str(row["task_id"]))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _one(objects: dict[str, Any], kind: str, name: str) -> Any:
    if name not in objects:
        raise RefusedError(404, f"{kind.capitalize()} {name} not found")
    return objects[name]


def _kept(objects: dict[str, Any], kind: str, method: str, name: str, query: dict[str, str]) -> Any:
    if not name:
        return _page(kind, list(objects.values()), query)
    found = _one(objects, kind, name)
    if method == "DELETE":
        del objects[name]
        return {}
    return found


def _page(kind: str, found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    """A list as the server pages, filters and sorts it; an empty one has no field of its kind."""
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        found = [each for each in found if _matches(each, predicate)]
    key, _, direction = (query.get("sort_by") or "created_at asc").partition(" ")
    # Of what was made in the same second, the later stands first, or last.
    found = sorted(found, key=lambda each: str(each.get(key, "")))
    found = found[::-1] if direction == "desc" else found
    start, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
    page: dict[str, Any] = {kind: found[start : start + size]} if found[start : start + size] else {}
    page["total_size"] = len(found)
    if start + size < len(found):
        page["next_page_token"] = str(start + size)
    return page


def _matches(each: dict[str, Any], predicate: dict[str, Any]) -> bool:
    names = {"name": "display_name", "id": "run_id", "status": "state"}
    key = predicate["key"] if predicate["key"] in each else names.get(predicate["key"], predicate["key"])
    has = str(each.get(key, ""))
    values = {re.sub(r"_(\w)", lambda found: found[1].upper(), key): value for key, value in predicate.items()}
    wanted = str(
        next((values[f"{kind}Value"] for kind in ("string", "timestamp", "long") if f"{kind}Value" in values), "")
    )
    several = values.get("stringValues", {}).get("values", [])
    operation = predicate.get("operation", "EQUALS")
    operation = _OPERATIONS.get(operation, operation)
    outcomes = {
        "EQUALS": has == wanted,
        "NOT_EQUALS": has != wanted,
        "IS_SUBSTRING": wanted in has,
        "IN": has in several,
        "GREATER_THAN": has > wanted,
        "GREATER_THAN_EQUALS": has >= wanted,
        "LESS_THAN": has < wanted,
        "LESS_THAN_EQUALS": has <= wanted,
    }
    return outcomes[operation]
