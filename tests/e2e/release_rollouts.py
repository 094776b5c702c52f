"""Rollouts of a release in a real cluster: its keeper is asked as the command line asks it, and parts are killed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from contracts.rollout_policy import Limit, RolloutPolicy, Strategy
from deploy.cli.cluster.cluster_settings import Cluster
from deploy.cli.cluster.kube import Kube
from deploy.cli.releases.by_rollout import apply_rollouts
from deploy.cli.releases.keeper import ReleaseKeeper, find_keeper
from services.rollout.state import Rollout
from services.rollout.store import Place, Request
from tests.e2e import faulty_engines
from tests.e2e.model_release import STORE, Release
from tests.e2e.spaces import apply, kubectl

QUICK = RolloutPolicy.model_validate(
    {
        "weights": (10, 50, 100),
        "step_samples": 15,
        "step_seconds": 1,
        "warm_seconds": 2,
        "start_seconds": 120,
        "errors": {"tolerated": 0, "margin": 0.2},
        "refusals": {"tolerated": 0.1, "margin": 0.3},
        "latency": {"tolerated": 0.5, "margin": 0.9},
        "answers": {"tolerated": 0.1, "margin": 0.3},
        "flags": {"tolerated": 0.1, "margin": 0.3},
    }
)

STRICT = QUICK.model_copy(
    update={"errors": Limit(tolerated=0.05, margin=0.1), "latency": Limit(tolerated=0.3, margin=0.5)}
)

# People say which version's items they like; with every list one of both wins.
DRAFTED = QUICK.model_copy(
    update={"weights": (50, 100), "step_samples": 5, "drafted": Limit(tolerated=0.1, margin=0.3, judged=True)}
)

# Asks for lists until it is told to stop. Who gets items of both versions clicks the candidate's; all answers are kept.
READER = """
import json, os, signal, threading, time, urllib.request
url, headers = os.environ["URL"], {"content-type": "application/json", "authorization": "Bearer " + os.environ["KEY"]}
stop, lists = threading.Event(), []
signal.signal(signal.SIGTERM, lambda *_: stop.set())
def ask(path, document):
    request = urllib.request.Request(url + path, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
until = time.monotonic() + float(os.environ["SECONDS_AT_MOST"])
while not stop.is_set() and time.monotonic() < until:
    try:
        answer = ask("/recommend", {"user": "ann", "k": 2})
        items = [one["item"] for one in answer["items"]]
        lists.append((answer["version"], "".join(sorted(items))))
        if liked := set(items) & set("def"):
            if len(liked) < len(items):
                ask("/feedback", {"labels": [{"id": answer["id"], "label": sorted(liked)}]})
        if len(lists) == 1:
            print("started", flush=True)
    except OSError as err:
        lists.append((type(err).__name__, str(err))) if lists else None
    stop.wait(0.1)
print(json.dumps({"lists": sorted(set(lists))}), flush=True)
"""


def switch_on(release: Release, bundle: str) -> None:
    """Give the release `toy` rollouts, as `fairlead deploy` does, and a package of engines by its values."""
    values = release.values(bundle) | {"rollouts": {"enabled": True}, "config": {"grpc_port": 3001}} | _package(release)

    def upgrade() -> None:
        done = release.upgrade_with(values, "--timeout", "240s")
        assert done.returncode == 0, done.stderr

    apply_rollouts(Kube(release.namespace), "toy", upgrade)


def _package(release: Release) -> dict[str, Any]:
    """Put the package of faulty engines into the namespace; the values by which the pods of a release have it."""
    info = "faulty_engines-1.0.dist-info"
    files = {
        "faulty_engines.py": Path(faulty_engines.__file__).read_text(encoding="utf-8"),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: faulty_engines\nVersion: 1.0\n",
        f"{info}/entry_points.txt": f"[fairlead.engines]\n{faulty_engines.ENTRIES}\n",
    }
    data = {path.replace("/", "_"): text for path, text in files.items()}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "engines"}, "data": data}
    apply(release.namespace, config)
    items = [{"key": path.replace("/", "_"), "path": path} for path in files]
    return {
        "extraVolumes": [{"name": "engines", "configMap": {"name": "engines", "items": items}}],
        "extraVolumeMounts": [{"name": "engines", "mountPath": "/engines", "readOnly": True}],
        "extraEnv": [{"name": "PYTHONPATH", "value": "/app:/engines"}],
    }


def keeper_of(release: Release, name: str = "toy") -> ReleaseKeeper:
    """The keeper of a release."""
    found = find_keeper(Cluster(namespace=release.namespace), name)
    assert found is not None
    return found


def roll_out(
    release: Release,
    keeper: ReleaseKeeper,
    bundle: str,
    kills: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    strategy: Strategy = "canary",
    policy: RolloutPolicy = QUICK,
) -> Rollout:
    """Bring a bundle until its rollout ends; `kills` has by phase the components that lose a pod in it."""
    place = Place(source=f"{STORE}/{bundle}", digest=release.bundles[bundle].digest)
    told = {"id": secrets.token_hex(8), "command": "start", "actor": "user:test", "candidate": bundle}
    keeper.ask(Request.model_validate({**told, "strategy": strategy, "policy": policy, "place": place}))
    left, until = dict(kills), time.monotonic() + 240
    while True:
        rollout = keeper.read().rollout
        assert rollout is not None
        if rollout.ended:
            return rollout
        assert time.monotonic() < until, f"{rollout.phase}: {rollout.reasons}"
        for component in left.pop(rollout.phase, ()):
            kubectl("-n", release.namespace, "delete", "pod", _a_pod(release, component), "--wait=false")
        time.sleep(0.5)


def _a_pod(release: Release, component: str) -> str:
    chosen = f"app.kubernetes.io/instance=toy,app.kubernetes.io/component={component}"
    found: Any = json.loads(kubectl("-n", release.namespace, "get", "pods", "-l", chosen, "-o", "json"))
    return str(found["items"][0]["metadata"]["name"])
