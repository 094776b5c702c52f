"""Images and chats in a real cluster: releases of the model's chart with what only their services have."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts import metric_names as names
from contracts.bundle import DOCUMENT, read_bundle
from services.server.auth import make_key
from tests.e2e.model_release import CHART, IMAGE, LOGS, MAY_CALL, ROOT, Release, publish
from tests.e2e.spaces import apply, kubectl, need_image, space
from tests.image_bundle import encoded, png_header
from tests.problem_bundles import tiny_chat

pytestmark = pytest.mark.e2e
CHAT = f"{IMAGE}-chat"
ROUTER = "fairlead-model-router"
SAID = {"messages": [{"role": "user", "content": "A"}], "temperature": 0, "stream": True, "max_tokens": 400}
LOGGED = {"predictions": {"folder": LOGS, "upload_seconds": 1}}
_TRAIN = """
import sys
from pathlib import Path
from pipelines.tasks.images.signs import signs
from tests.chain import Chain
home = Path(sys.argv[1])
for name, image, _ in signs(seed=1, each=24):
    (home / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
    (home / "photos" / name).write_bytes(image)
made = Chain(task="images", home=home, overrides={"training.epochs": 4}, source=str(home / "photos"))
made.dataset()
made.candidate()
made.bundle()
"""
# One JPEG as a body, in JSON and in a form, a file that is cut off, one that claims too much, and what the metrics say.
_ASK_IMAGE = """
import base64, json, os, time, urllib.error, urllib.request
given, url = json.loads(os.environ["BODY"]), os.environ["URL"]
image, huge = base64.b64decode(given["image"]), base64.b64decode(given["huge"])
part = b'--x\\r\\ncontent-disposition: form-data; name="file"; filename="a.jpg"\\r\\n\\r\\n' + image + b"\\r\\n"
bodies = {
    "file": (image, "image/jpeg"),
    "json": (json.dumps({"instances": [{"image": given["image"]}]}).encode(), "application/json"),
    "form": (part + part + b"--x--\\r\\n", "multipart/form-data; boundary=x"),
    "cut": (image[:300], "image/jpeg"),
    "huge": (huge, "image/png"),
}
def ask(path, data=None, kind=""):
    headers = {"content-type": kind, "authorization": "Bearer " + os.environ["KEY"]}
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        return err.code, err.read().decode()
until = time.monotonic() + float(os.environ["PATIENCE"])
while True:
    try:
        ask("/predict", *bodies["file"])
        break
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.5)
said = {name: ask("/predict", *body) for name, body in bodies.items()}
print(json.dumps(said | {"metrics": ask("/metrics")}))
"""
# What OpenAI's clients send, with a key and without: the pieces of a stream, each with the time of its arrival.
_ASK_CHAT = """
import json, os, time, urllib.error, urllib.request
url, body = os.environ["URL"], os.environ["BODY"].encode()
def ask(path, data=None, key=os.environ["KEY"]):
    headers = {"content-type": "application/json", "authorization": "Bearer " + key}
    return urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=60)
until = time.monotonic() + float(os.environ["PATIENCE"])
while True:
    try:
        models = json.load(ask("/v1/models"))
        break
    except OSError as err:
        if time.monotonic() > until:
            raise
        time.sleep(0.5)
with ask("/v1/chat/completions", body) as answer:
    kind, pieces = answer.headers["content-type"], []
    for line in answer:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            pieces.append((time.monotonic(), json.loads(line[6:])))
refused = {}
for key in ("", "of-somebody-else"):
    try:
        ask("/v1/chat/completions", body, key)
    except urllib.error.HTTPError as err:
        refused[key] = (err.code, json.load(err))
print(json.dumps({"kind": kind, "pieces": pieces, "refused": refused, "models": [one["id"] for one in models["data"]]}))
"""


# In a server: connections that were dropped, before and after one to an address that is kept for examples.
_DROPPED = """
import json, socket
def dropped():
    names, values = [line.split()[1:] for line in open("/proc/net/netstat") if line.startswith("TcpExt")]
    return int(dict(zip(names, values))["TCPSynRetrans"])
before, planted = dropped(), ""
try:
    socket.create_connection(("203.0.113.7", 443), timeout=3.5)
except OSError as err:
    planted = type(err).__name__
print(json.dumps([before, planted, dropped()]))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A classifier of signs, trained on photos of a folder while S3 starts, and a Llama that knows the alphabet."""
    home = tmp_path_factory.mktemp("bundles")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _TRAIN, str(home / "signs")]
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as training,
        space("kinds") as namespace,
    ):
        need_image(IMAGE)
        need_image(CHAT)
        tiny = tiny_chat(home / "tiny")
        _, log = training.communicate(timeout=300)
        assert training.returncode == 0, log.decode()
        signs = read_bundle(next((home / "signs" / "published").rglob(DOCUMENT)).parent)
        made = Release(namespace, {"signs": signs, "tiny": tiny})
        publish(namespace, made.bundles)
        yield made


def install(release: Release, name: str, values: dict[str, Any]) -> None:
    """Install a release, wait, and replay its golden examples from a pod."""
    done = release.helm("install", name, str(CHART), "--wait", "--timeout", "240s", values=values)
    assert done.returncode == 0, done.stderr + kubectl("-n", release.namespace, "get", "pods,events")
    tested = release.helm("test", name, "--timeout", "240s", "--logs")
    assert tested.returncode == 0, tested.stderr + tested.stdout


def test_an_image_is_answered_by_a_pod_counted_and_logged_without_its_pixels(release: Release) -> None:
    install(release, "signs", release.values("signs", name="signs", modality="image") | {"config": LOGGED})
    golden = next(release.bundles["signs"].golden())
    body = json.dumps({"image": golden.inputs["image"], "huge": encoded(png_header(60_000, 60_000))})
    said = release.ask("photographer", MAY_CALL, "http://signs", release.key("signs"), _ASK_IMAGE, body)
    assert {name: code for name, (code, _) in said.items() if code != 200} == {"cut": 422, "huge": 422}
    answers = [json.loads(said[name][1])["predictions"] for name in ("file", "json", "form")]
    assert [len(rows) for rows in answers] == [1, 1, 2]
    for row in (row for rows in answers for row in rows):
        assert list(row["probabilities"].values()) == pytest.approx(golden.expected, abs=1e-4)
    label = answers[0][0]["label"]
    samples = {
        (sample.name, sample.labels.get("label") or sample.labels.get("digest")): sample.value
        for family in text_string_to_metric_families(said["metrics"][1])
        for sample in family.samples
    }
    assert (names.MODEL_INFO, release.bundles["signs"].digest[:12]) in samples
    assert samples[names.PREDICTIONS, label] >= 5, "those of this test, the first of them twice"
    records = release.records("signs", "signs")
    assert {(one["version"], one["inputs"]["image"]["width"]) for one in records} == {("signs", 32)}
    assert str(golden.inputs["image"])[:8] not in json.dumps(records), "pixels are in no log"


def test_a_chat_is_streamed_by_a_pod_and_by_the_router_before_it(release: Release) -> None:
    people, line = make_key("people")
    _secret(release, "chat-keys", keys=line, key=people)
    values = release.values("tiny", name="tiny", modality="chat") | {
        "image": {"tag": CHAT.rpartition(":")[2]},
        "config": {"threads": 1, "slots": 2, **LOGGED},
        "secrets": {"keys": {"name": "chat-keys"}, "test": {"name": "chat-keys"}},
    }
    install(release, "chat", values)
    routed = _router(release)  # starts while the service is asked
    _is_streamed(
        release.ask("talker", MAY_CALL, "http://chat", people, _ASK_CHAT, json.dumps(SAID | {"model": "tiny"}))
    )
    assert "timed out" in release.ask("stranger", {"app": "foreign"}, "http://chat", people, body="{}")["error"]
    records = release.records("chat", "tiny")
    assert {one["version"] for one in records} == {"tiny"}
    assert "BCDEF" not in json.dumps(records), "what is said is in no log"

    kubectl("-n", release.namespace, "rollout", "status", f"deployment/{ROUTER}", "--timeout=240s")
    may, url = {"fairlead.io/access-model-router": "true"}, f"http://{ROUTER}:8080"
    _is_streamed(release.ask("router-talker", may, url, routed, _ASK_CHAT, json.dumps(SAID | {"model": "assistant"})))


def _is_streamed(found: Any) -> None:
    """Many pieces that came one after the other, in OpenAI's form; refused without the key."""
    assert found["kind"].startswith("text/event-stream")
    texts = [piece["choices"][0]["delta"].get("content") or "" for _, piece in found["pieces"] if piece["choices"]]
    assert "".join(texts) == (string.ascii_uppercase[1:] + string.ascii_uppercase * 20)[:400]
    assert found["pieces"][-1][0] - found["pieces"][0][0] > 0.05, "all at once"
    assert {key: (code, said["error"]["code"]) for key, (code, said) in found["refused"].items()} == {
        "": (401, "unauthorized"),
        "of-somebody-else": (401, "unauthorized"),
    }


def _router(release: Release) -> str:
    """The platform's router before the chat service, with keys of its own; the key that it takes."""
    key, line = make_key("team")
    _secret(release, "router-keys", keys=line)
    values = {
        "enabled": True,
        "config": {
            "backends": {"chat": {"url": "http://chat/v1", "key": "CHAT_KEY"}},
            "routes": {"assistant": {"targets": [{"backend": "chat", "model": "tiny"}]}},
        },
        "providerKeys": [{"variable": "CHAT_KEY", "secret": "chat-keys", "key": "key"}],
        "keys": {"name": "router-keys"},
    }
    shown = ["--show-only", "templates/model-router.yaml", "--set-json", f"modelRouter={json.dumps(values)}"]
    made = release.helm("template", "fairlead", str(ROOT / "helm" / "platform"), *shown)
    assert made.returncode == 0, made.stderr
    apply(release.namespace, made.stdout)
    return key


def _secret(release: Release, name: str, **data: str) -> None:
    document = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
    apply(release.namespace, document)


@pytest.mark.parametrize("name", ["signs", "chat"])
def test_nothing_outside_was_asked_for_and_what_would_be_is_counted_by_linux(release: Release, name: str) -> None:
    """After all that the tests above have asked: the policy drops what goes elsewhere, and that is counted."""
    inside = ("exec", f"deploy/{name}", "-c", "server", "--", "python", "-c", _DROPPED)
    before, planted, after = json.loads(kubectl("-n", release.namespace, *inside))
    assert (before, planted) == (0, "TimeoutError")
    assert after >= 2, "the first second, and the third"
