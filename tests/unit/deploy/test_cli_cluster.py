"""What the command line writes for a cluster, and what it makes of what kubectl and helm say."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from contracts.errors import PlatformError
from deploy.cli.cluster.cluster_settings import Cluster, Profile, SecretRef
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.pod_diagnosis import explain, pod_troubles, readable
from deploy.cli.cluster.port_forward import reach, read_secret
from deploy.cli.releases import release
from deploy.cli.releases.release_values import first_values, model_section, pin, release_name
from deploy.values.model_service import ChartValues

MODEL = {"source": "s3://b/fraud/1", "digest": "a" * 64, "name": "fraud", "version": "2", "modality": "tabular"}
OURS = {"app.kubernetes.io/part-of": "fairlead"}


def test_a_new_file_has_all_that_the_chart_needs(tmp_path: Path) -> None:
    profile = Profile(online="redis://fairlead-redis:6379/0", cluster=Cluster())
    values = yaml.safe_load(pin(tmp_path / "fraud.yaml", MODEL, first_values(profile, features=True)))
    assert values["model"] == MODEL
    assert values["storage"]["existingSecret"] == "fairlead-s3"
    assert values["config"]["online"] == "redis://fairlead-redis:6379/0"
    assert values["secrets"]["online"] == {"name": "fairlead-redis", "key": "password"}
    limited = Cluster.model_validate({"storage": {"models": {"name": "less", "user_key": "id", "password_key": "key"}}})
    storage = first_values(Profile(cluster=limited), features=False)["storage"]
    assert [storage[k] for k in ("existingSecret", "accessKeyKey", "secretKeyKey")] == ["less", "id", "key"]
    assert "config" not in first_values(profile, features=False), "a log that pods do not share is none"
    shipped = yaml.safe_load((Path(release.CHART) / "values.yaml").read_text())
    for key in values:
        assert set(values[key]) <= set(shipped[key]) | {"online"}
    everything = {**shipped, **{k: {**shipped[k], **values[k]} for k in values}}
    ChartValues.model_validate(everything)  # what the chart's schema is made of


def test_a_new_release_logs_where_the_monitor_reads_with_the_salt_of_all_models() -> None:
    profile = Profile(predictions="s3://b/predictions", online="redis://r:6379/0", cluster=Cluster())
    for features in (True, False):
        values = first_values(profile, features)
        assert values["config"]["predictions"] == {"folder": "s3://b/predictions"}
        assert values["secrets"]["salt"] == {"name": "fairlead-predictions", "key": "salt"}
        assert ("online" in values["secrets"]) is features
    without = Profile(predictions="s3://b/predictions", cluster=Cluster(salt=SecretRef()))
    assert "secrets" not in first_values(without, features=False)


BEFORE = "replicaCount: 2 # two\n"
AFTER = "\n# about the limits\nresources:\n  limits: {memory: 1Gi}\n"


@pytest.mark.parametrize(
    "section",
    [
        "model:\n  source: s3://b/old\n  digest: x\n",
        "model: {source: s3://b/old}\n",
        "model:\n",
        "model:\n  version: '1' # the first\n\n  # a remark inside\n  name: fraud\n",
    ],
)
@pytest.mark.parametrize(("before", "after"), [(BEFORE, AFTER), ("", AFTER), (BEFORE, ""), ("# only\n", "")])
def test_only_the_section_of_the_model_is_replaced(tmp_path: Path, section: str, before: str, after: str) -> None:
    file = tmp_path / "fraud.yaml"
    file.write_text(before + section + after)
    text = pin(file, MODEL, {})
    assert text.startswith(before)
    assert text.endswith(after)
    expected = yaml.safe_load(before + after) or {}
    assert yaml.safe_load(text) == {**expected, "model": MODEL}
    file.write_text(text)
    assert pin(file, MODEL, {}) == text


@pytest.mark.parametrize("text", ["- a\n- b\n", "{replicaCount: 1}\n", "a: [\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fraud.yaml"
    file.write_text(text)
    with pytest.raises(PlatformError) as caught:
        pin(file, MODEL, {})
    assert str(file) in caught.value.headline


def test_a_file_without_the_section_keeps_everything(tmp_path: Path) -> None:
    file = tmp_path / "fraud.yaml"
    file.write_text("replicaCount: 2")
    assert yaml.safe_load(pin(file, MODEL, {})) == {"replicaCount": 2, "model": MODEL}


def test_a_release_is_named_as_a_dns_label() -> None:
    assert release_name("card_fraud") == "card-fraud"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ImagePullBackOff: Back-off pulling image", "the node cannot get the image"),
        ("OOMKilled, exit code 137", "it used more memory than its limit"),
        ('secret "nobody" not found', "a Secret that it reads is missing, or a key of it"),
        ("0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", "no node has a free GPU"),
        (
            'pods "x" is forbidden: violates PodSecurity "restricted"',
            "the namespace's Pod Security level refuses the pod",
        ),
        ("bundle refused: golden.jsonl has sha256 ab...", "the bundle is not what the registry says"),
        ("golden example 3 differs", "the model answers its golden examples otherwise"),
        ("zebra", "not known to this program"),
    ],
)
def test_what_kubernetes_says_is_explained(said: str, cause: str) -> None:
    assert explain(said)[0].startswith(cause)


def test_a_log_line_of_ours_is_shown_as_its_message() -> None:
    error = {"headline": "bundle refused", "detail": "x has another sha256", "fix": "publish again"}
    lines = "\n".join([json.dumps({"event": "failed", "error": error}), "plain text"])
    assert readable(lines) == "bundle refused; x has another sha256; publish again\nplain text"


def test_a_failing_init_container_is_in_trouble_and_a_starting_pod_is_not(programs: Any, tmp_path: Path) -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    statuses = [{"name": "fetch", "state": waiting, "lastState": ended, "restartCount": 2, "ready": False}]
    bad = {"metadata": {"name": "bad", "labels": OURS}, "spec": {"containers": [{"name": "server"}]}}
    bad["status"] = {"phase": "Pending", "initContainerStatuses": statuses}
    young = {
        "metadata": {"name": "young", "labels": OURS},
        "spec": {"containers": [{"name": "server"}]},
        "status": {"phase": "Pending"},
    }
    (tmp_path / "pods.json").write_text(json.dumps({"items": [bad, young]}))
    programs(
        "kubectl",
        f'case "$*" in *" logs "*--previous*) echo the storage refused x;; *pods*) cat {tmp_path}/pods.json;; esac',
    )
    (trouble,) = pod_troubles(Kube("ns"))
    assert trouble.what == "pod/bad (fetch)"
    assert trouble.state == "CrashLoopBackOff: Error, exit code 1"
    assert trouble.cause == "S3 refuses the credentials"


def test_what_others_run_in_the_namespace_is_neither_listed_nor_diagnosed(programs: Any, tmp_path: Path) -> None:
    waiting = [{"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "ready": False}]

    def item(name: str, labels: dict[str, str] | None) -> dict[str, Any]:
        meta = {"name": name} if labels is None else {"name": name, "labels": labels}
        spec = {"replicas": 1, "containers": [{"name": "main"}]}
        status = {"phase": "Pending", "containerStatuses": waiting}
        return {"kind": "StatefulSet", "metadata": meta, "spec": spec, "status": status}

    theirs = [item("shop", {"app.kubernetes.io/part-of": "shop"}), item("bare", None)]
    step = item("step", {"pipeline/runid": "1"})
    (tmp_path / "items.json").write_text(json.dumps({"items": [*theirs, item("mine", OURS), step]}))
    charts = ["platform-0.1.0", "monitoring-stack-4.2.0", "redis-19.0.1", "model-service-0.1.0", "shop-1.0.0"]
    releases = [{"name": chart, "chart": chart, "status": "failed", "revision": "1"} for chart in charts]
    programs("kubectl", f'case "$*" in *logs*) echo x;; *events*) ;; *) cat {tmp_path}/items.json;; esac')
    programs("helm", f"echo '{json.dumps(releases)}'")
    kube = Kube("ns")
    assert [found["metadata"]["name"] for found in kube.ours("deployments")] == ["mine", "step"]
    assert [trouble.what for trouble in pod_troubles(kube)] == ["pod/mine (main)", "pod/step (main)"]
    assert [release["name"] for release in kube.releases()] == ["platform-0.1.0", "model-service-0.1.0"]
    assert len(kube.ours("pods", "app=shop")) == 4  # kubectl selects


def test_kubectl_that_is_missing_or_refused_says_what_to_do(programs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(PlatformError, match="kubectl is not installed"):
        Kube("ns").run("get", "pods")
    monkeypatch.setattr("shutil.which", lambda name: f"{programs.folder}/{name}")
    programs("kubectl", 'echo "The connection to the server 127.0.0.1:6443 was refused" >&2; exit 1')
    with pytest.raises(PlatformError) as caught:
        Kube("ns").run("get", "pods")
    assert "KUBECONFIG" in caught.value.fix


def test_a_missing_secret_or_key_is_named(programs: Any) -> None:
    programs("kubectl", """echo '{"data": {"access-key": "dXNlcg=="}}'""")
    with pytest.raises(PlatformError, match="has no key 'secret-key'"):
        read_secret(Cluster(), SecretRef(name="fairlead-s3"))
    programs("kubectl", "true")
    with pytest.raises(PlatformError, match="is not there"):
        read_secret(Cluster(), SecretRef(name="fairlead-s3"))
    programs("kubectl", """echo '{"data": {"access-key": "dXNlcg==", "secret-key": "cGFzcw=="}}'""")
    assert read_secret(Cluster(), SecretRef(name="fairlead-s3")) == ("user", "pass")


def test_a_pod_whose_names_do_not_resolve_yet_asks_for_no_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("PATH", "/nowhere")
    address = "http://no-such-service.invalid:5000"
    assert reach(address, Cluster()) == address


def test_an_address_that_resolves_is_not_forwarded(programs: Any) -> None:
    assert reach("http://127.0.0.1:5000", Cluster()) == "http://127.0.0.1:5000"
    assert reach("sqlite:///file.db", Cluster()) == "sqlite:///file.db"
    programs("kubectl", 'echo "Forwarding from 127.0.0.1:40123 -> 5000"; sleep 2')
    assert reach("http://no-such-host.invalid:5000", Cluster()) == "http://127.0.0.1:40123"


def test_a_forwarded_port_comes_back_when_kubectl_ends(programs: Any) -> None:
    once = """import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[-1].split(":")[0] or 0)))
print(f"Forwarding from 127.0.0.1:{server.getsockname()[1]} -> 5000", flush=True)
server.accept()[0].sendall(b"here")"""
    (programs.folder / "once.py").write_text(once)
    programs("kubectl", f'exec {sys.executable} {programs.folder}/once.py "$@"')
    port = urlsplit(reach("http://ends-often.invalid:5000", Cluster())).port
    answers, end = 0, time.monotonic() + 20
    while answers < 3 and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            answers += connection.recv(4) == b"here"
    assert answers == 3
    programs("kubectl", "sleep 60")


def test_a_rollback_goes_to_the_version_before_not_to_the_same_one(programs: Any) -> None:
    history = [
        {"revision": n, "status": s} for n, s in ((1, "superseded"), (2, "failed"), (3, "superseded"), (4, "deployed"))
    ]
    programs(
        "helm",
        f"""case "$*" in
  *history*) echo '{json.dumps(history)}';;
  *"--revision 1 "*) echo '{{"model": {{"digest": "old"}}}}';;
  *) echo '{{"model": {{"digest": "new"}}}}';;
esac""",
    )
    assert release.previous_revision(Kube("ns"), "fraud") == 1
    programs(
        "helm",
        f"""case "$*" in *history*) echo '{json.dumps(history)}';; *) echo '{{"model": {{"digest": "x"}}}}';; esac""",
    )
    with pytest.raises(PlatformError, match="nothing to roll release fraud back to"):
        release.previous_revision(Kube("ns"), "fraud")


def test_a_local_profile_has_no_cluster(fairlead: Any) -> None:
    said = fairlead("status", "--env", "local", "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "no_cluster")


def test_the_section_of_a_version_is_immutable() -> None:
    from contracts.registry import ModelVersion

    version = ModelVersion(
        name="fraud",
        version="2",
        digest="a" * 64,
        path="s3://b/fraud/1",
        gate_passed=True,
        created="",
        metrics={},
        recipe="r",
    )
    assert model_section(version, "tabular") == MODEL


class Guarded(http.server.BaseHTTPRequestHandler):
    """An endpoint that answers who has the key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers["Authorization"] == "Bearer made-once"
        answer = {"model": "fraud", "version": "2", "predictions": [{"label": "ok", "probability": 0.5}]}
        problem = {"type": "urn:fairlead:problem:unauthorized", "title": "an API key is needed"}
        body = json.dumps(answer if known else problem).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def release_of_fraud(programs: Any) -> Iterator[str]:
    """A cluster with a release `fraud` whose forwarded port is a Guarded endpoint's; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        service = {"metadata": {"name": "fraud-x"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
        secret = {"data": {"key": base64.b64encode(b"made-once").decode(), "keys": ""}}
        chosen = "-l app.kubernetes.io/instance=fraud,app.kubernetes.io/component=server"
        programs(
            "kubectl",
            f"""case "$*" in
  *"get services {chosen}"*) echo '{json.dumps({"items": [service]})}';;
  *"get secrets {chosen}"*) echo '{json.dumps({"items": [secret]})}';;
  *"port-forward service/fraud-x :80"*) echo "Forwarding from 127.0.0.1:{server.server_port} -> 3000"; sleep 2;;
  *) echo '{{"items": []}}';;
esac""",
        )
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_release_is_asked_with_its_own_key_and_no_port_by_hand(release_of_fraud: str, fairlead: Any) -> None:
    said = fairlead("predict", "fraud@champion", "--input", "{}", "--env", "cluster", "--json")
    assert said.code == 0, said.err
    assert said.json["predictions"][0]["label"] == "ok"


def test_an_endpoint_that_wants_a_key_gets_that_of_the_environment(
    release_of_fraud: str, fairlead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("predict", "fraud", "--input", "{}", "--url", release_of_fraud, "--json")
    refused = fairlead(*asked)
    assert (refused.code, refused.json["error"]["code"]) == (1, "unauthorized")
    assert "export FAIRLEAD_API_KEY" in refused.json["error"]["fix"]
    monkeypatch.setenv("FAIRLEAD_API_KEY", "made-once")
    assert fairlead(*asked).code == 0


def test_a_model_without_a_release_is_named_with_the_command_that_makes_one(
    release_of_fraud: str, fairlead: Any
) -> None:
    said = fairlead("predict", "news", "--input", "{}", "--env", "cluster", "--json")
    assert said.json["error"]["headline"] == "no release of news in namespace fairlead"
    assert "fairlead deploy news --env cluster" in said.json["error"]["fix"]
    both = fairlead("predict", "news", "--input", "{}", "--env", "cluster", "--url", "http://x", "--json")
    assert both.json["error"]["code"] == "bad_input"


def test_a_model_that_does_not_fit_into_its_pod_is_refused_before_it_is_deployed(tmp_path: Path) -> None:
    from contracts.errors import PlatformError
    from deploy.cli.releases.model_room import check_release
    from deploy.cli.releases.release import CHART
    from tests.problem_bundles import tiny_chat

    bundle = tiny_chat(tmp_path)
    check_release(bundle, "{}", CHART)  # 512Mi of the chart
    large = "config: {window: 1048576, slots: 4}"
    with pytest.raises(PlatformError, match="tiny is too large for its pod") as caught:
        check_release(bundle, large, CHART)
    memory = caught.value.fix.split(" to ")[1].split(",")[0]
    check_release(bundle, f"{large}\nresources: {{limits: {{memory: {memory}}}}}", CHART)
    with pytest.raises(PlatformError, match="3 processes"):
        check_release(bundle, "config: {window: 1048576, slots: 1, adapters: {folder: /a}}", CHART)
    check_release(bundle, "config: {window: 1048576, slots: 4, memory_check: false}", CHART)
    vllm = "engine: {kind: vllm, gpuMemory: %s}\ngpu: {count: 1}\nconfig: {window: 1048576}"
    check_release(bundle, vllm % '""', CHART)
    check_release(bundle, vllm % "8Gi", CHART)
    with pytest.raises(PlatformError, match="GPUs of 2Gi"):
        check_release(bundle, vllm % "2Gi", CHART)
