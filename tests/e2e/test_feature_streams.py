"""The consumer of a Kafka topic as the chart's pod, which writes into the chart's Redis what a model then reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from feature_repo.transforms.recommend import counts_of
from tests.e2e.cluster import CHART, Platform
from tests.e2e.spaces import apply, need_image, space

pytestmark = pytest.mark.e2e
ADDRESS, TOPIC, ASIDE = "127.0.0.1:9092", "items", "items.refused"
_LOST = {"persistence": {"enabled": False}}
VALUES: dict[str, Any] = {
    "mariadb": _LOST,
    "feature-store": {
        "redis": _LOST,
        "stream": {
            "enabled": True,
            "config": {
                "brokers": ADDRESS,
                "kafka": {"session.timeout.ms": 6000},
                "topics": [{"topic": TOPIC, "source": "item_windows_pushed"}],
                "dead_letters": ASIDE,
            },
        },
    },
}
SHOWN = (
    "templates/mariadb.yaml",
    *(f"charts/feature-store/templates/{x}.yaml" for x in ("redis", "registry", "stream")),
)
# librdkafka's own brokers listen on this pod's loopback only, at a port of their choice: they are beside the consumer.
_BROKERS = """
import socket, threading
from confluent_kafka import Producer
home = Producer({"test.mock.num.brokers": 1, "log_level": 0})
(broker,) = home.list_topics(timeout=10).brokers.values()
for topic in ("items", "items.refused"):
    home.list_topics(topic, timeout=10)
def copy(source, target):
    while part := source.recv(65536):
        target.sendall(part)
    target.close()
with socket.create_server(("127.0.0.1", 9092)) as server:
    while True:
        client, _ = server.accept()
        behind = socket.create_connection((broker.host, broker.port))
        for ends in ((client, behind), (behind, client)):
            threading.Thread(target=copy, args=ends, daemon=True).start()
"""
_SEND = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": "127.0.0.1:9092"})
for text in sys.argv[1:]:
    producer.produce("items", value=text.encode())
assert producer.flush(20) == 0
"""
_READ = """
import json
from feast import FeatureStore
store = FeatureStore(fs_yaml_file="/etc/fairlead/feature_store.yaml")
print(json.dumps(store.get_online_features(["item_windows:item_last"], [{"item": "a"}, {"item": "b"}]).to_dict()))
"""
_METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9112/metrics').read().decode())"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """The SQL server, the store, the definitions, and the consumer with its brokers."""
    with space("streams", storage=False) as namespace:
        made = Platform(namespace)
        done = made.helm("template", "fairlead", str(CHART), *(f"--show-only={x}" for x in SHOWN), values=VALUES)
        assert done.returncode == 0, done.stderr
        objects = [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]
        for image in {one["image"] for each in objects for one in _containers(each)}:
            need_image(image)
        (consumer,) = [each for each in objects if each["kind"] == "Deployment"]
        (main,) = _containers(consumer)
        beside = {key: main[key] for key in ("image", "securityContext")}
        beside |= {"name": "brokers", "command": ["python", "-c", _BROKERS]}
        consumer["spec"]["template"]["spec"]["containers"].append(beside)
        apply(namespace, *objects)
        yield made


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    pod: dict[str, Any] = document.get("spec", {}).get("template", {}).get("spec", {})
    return list(pod.get("containers", []))


def test_rows_of_a_topic_come_into_the_store_and_what_is_refused_is_set_aside(platform: Platform) -> None:
    platform.kubectl("wait", "job", "--all", "--for=condition=Complete", "--timeout=300s")
    platform.kubectl("rollout", "status", "deployment/fairlead-stream", "--timeout=300s")
    inside = ("exec", "deploy/fairlead-stream", "-c")
    row = dict.fromkeys(counts_of("item"), 1.0) | {"known_at": datetime.now(UTC).isoformat()}
    rows = [row | {"item": "a", "item_last": 5.0}, row | {"item": "b", "item_last": 7.0}]
    platform.kubectl(*inside, "brokers", "--", "python", "-c", _SEND, *map(json.dumps, rows), "{")

    def told() -> str:
        return platform.kubectl(*inside, "stream", "--", "python", "-c", _METRICS)

    refused = f'fairlead_stream_rows_total{{outcome="refused",topic="{TOPIC}"}} 1.0'
    platform.until(lambda: refused in told(), "what is no JSON is not set aside")
    assert f'fairlead_stream_rows_total{{outcome="pushed",topic="{TOPIC}"}} 2.0' in told()
    found = json.loads(platform.kubectl(*inside, "stream", "--", "python", "-c", _READ).splitlines()[-1])
    assert found["item_last"] == [5.0, 7.0]
