"""vLLM beside the chat service by one value: its container, what it may write, who reaches it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.chart import OPERATOR, containers, environment, images, named, of_kind, refused, render

DIGEST = "a" * 64
MODEL = {"source": "s3://models/chat", "digest": DIGEST, "modality": "chat", "name": "chat"}
VLLM: dict[str, Any] = {"model": MODEL, "engine": {"kind": "vllm"}, "gpu": {"count": 1}, "config": {"slots": 32}}
ADAPTERS = {"folder": "s3://models/adapters", "redis": "redis://redis:6379/0", "loaded": 8}
GROUP: dict[str, Any] = {
    **VLLM,
    "engine": {"kind": "vllm", "nodes": 2, "tensorParallel": 4, "pipelineParallel": 2},
    "gpu": {"count": 4},
}


def pod(values: dict[str, Any], kind: str = "Deployment") -> Any:
    (found,) = of_kind(render("model-service", values), kind)
    spec = found["spec"]
    return spec["template"] if kind == "Deployment" else spec["leaderWorkerTemplate"]


def container(template: Any, name: str) -> Any:
    (found,) = [one for one in containers(template) if one["name"] == name]
    return found


def test_the_server_asks_vllm_for_the_weights_that_it_was_started_with() -> None:
    made = pod(VLLM)
    engine, server = container(made, "engine"), environment(container(made, "server"))
    assert engine["command"] == ["vllm", "serve"]
    assert engine["args"][0] == f"/bundles/{DIGEST[:16]}/model/safetensors"
    assert server["FAIRLEAD_SERVICE_BUNDLE"] == f'"/bundles/{DIGEST[:16]}"'
    assert f"--served-model-name=chat@{DIGEST}" in engine["args"]
    assert server["FAIRLEAD_SERVICE_ENGINE__MODEL"] == f'"chat@{DIGEST}"'
    assert server["FAIRLEAD_SERVICE_ENGINE__URL"] == '"http://127.0.0.1:8000"'
    assert "--host=127.0.0.1" in engine["args"]  # who passes by the front passes by its guard
    assert "--max-num-seqs=32" in engine["args"]


def test_the_gpus_are_the_engine_s_and_the_server_s_image_needs_none() -> None:
    made = pod({**VLLM, "gpu": {"count": 1, "resource": "nvidia.com/gpu", "runtimeClassName": "nvidia"}})
    assert container(made, "engine")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in container(made, "server")["resources"]["limits"]
    assert not container(made, "server")["image"].endswith("-gpu")
    assert made["spec"]["runtimeClassName"] == "nvidia"
    assert made["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    without = pod({"model": MODEL, "gpu": {"count": 1}})
    assert [one["name"] for one in containers(without)] == ["fetch", "server"]
    assert container(without, "server")["image"].endswith("-gpu")


def test_it_is_restricted_asks_nobody_and_writes_into_volumes_only() -> None:
    made = pod(VLLM)
    engine = container(made, "engine")
    security = engine["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
    told = environment(engine)
    assert (told["HF_HUB_OFFLINE"], told["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in engine["volumeMounts"]}
    assert mounts == {"/bundles": True, "/tmp": False, "/cache": False, "/dev/shm": False}
    for name in ("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert told[name].startswith(("/tmp", "/cache"))
    assert {one["name"] for one in made["spec"]["volumes"]} >= {"engine-tmp", "engine-cache", "shm"}


def test_probes_give_weights_time_to_load() -> None:
    made = pod({**VLLM, "engine": {"kind": "vllm", "startSeconds": 3600}})
    engine, server = container(made, "engine"), container(made, "server")
    start = engine["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] == 3600
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] >= 3600
    assert {"exec"} < set(engine["readinessProbe"])  # nobody but this pod reaches its port
    assert environment(server)["FAIRLEAD_SERVICE_ENGINE__WAIT_SECONDS"] == "3600"


def test_adapters_are_written_by_the_server_and_read_by_the_engine() -> None:
    made = pod({**VLLM, "config": {"adapters": ADAPTERS}, "secrets": {"salt": {"name": "salt"}}})
    engine, server = container(made, "engine"), container(made, "server")
    assert {"--enable-lora", "--max-loras=8", "--max-lora-rank=16"} <= set(engine["args"])
    assert environment(engine)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert environment(server)["FAIRLEAD_SERVICE_ENGINE__ADAPTERS"] == '"/adapters"'
    assert {"name": "adapters", "mountPath": "/adapters"} in server["volumeMounts"]
    assert {"name": "adapters", "mountPath": "/adapters", "readOnly": True} in engine["volumeMounts"]
    assert "--enable-lora" not in container(pod(VLLM), "engine")["args"]


def test_its_metrics_are_scraped_through_the_server() -> None:
    monitor = named(render("model-service", VLLM, apis=OPERATOR), "PodMonitor", "fairlead")
    assert [one["path"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["/metrics", "/engine/metrics"]
    plain = named(render("model-service", {"model": MODEL}, apis=OPERATOR), "PodMonitor", "fairlead")
    assert [one["path"] for one in plain["spec"]["podMetricsEndpoints"]] == ["/metrics"]


def test_the_image_is_one_that_a_mirror_can_have() -> None:
    assert images(render("model-service", {**VLLM, "global": {"imageRegistry": "mirror.example"}})) == {
        "mirror.example/fairlead/service:0.1.0",
        "mirror.example/vllm/vllm-openai:v0.27.0",
    }


def test_two_slots_have_engines_of_their_own_versions() -> None:
    objects = render("model-service", {**VLLM, "rollouts": {"enabled": True, "artifacts": "s3://models"}})
    slots = [one for one in of_kind(objects, "Deployment") if one["metadata"]["name"].endswith(("-a", "-b"))]
    assert len(slots) == 2
    for slot in slots:
        engine = container(slot["spec"]["template"], "engine")
        assert engine["args"][0] == "/bundles/$(MODEL_DIGEST)/model/safetensors"
        assert "--served-model-name=chat@$(MODEL_DIGEST)" in engine["args"]
        assert "MODEL_DIGEST" in environment(engine)


def test_several_nodes_are_a_group_of_pods_that_only_its_first_one_answers_for() -> None:
    made = pod(GROUP, "LeaderWorkerSet")
    assert made["size"] == 2
    leader, worker = made["leaderTemplate"], made["workerTemplate"]
    assert [one["name"] for one in containers(leader)] == ["fetch", "server", "engine"]
    assert [one["name"] for one in containers(worker)] == ["fetch", "engine"]
    for template, headless in ((leader, False), (worker, True)):
        args = container(template, "engine")["args"]
        assert {"--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)"} <= set(args)
        assert {"--tensor-parallel-size=4", "--pipeline-parallel-size=2"} <= set(args)
        assert ("--headless" in args) is headless
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    objects = render("model-service", GROUP)
    assert of_kind(objects, "Deployment") == []
    service = named(objects, "Service", "fairlead")["spec"]["selector"]
    assert service.items() <= leader["metadata"]["labels"].items()
    assert not service.items() <= worker["metadata"]["labels"].items()
    policy = named(objects, "NetworkPolicy", "fairlead-group")["spec"]
    (rule,) = policy["ingress"]
    assert "ports" not in rule
    assert len(rule["from"]) == 2


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({**VLLM, "model": {**MODEL, "modality": "text"}}, "engine.kind"),
        ({**VLLM, "gpu": {"count": 0}}, "gpu.count"),
        ({**VLLM, "gpu": {"count": 2}}, "engine.tensorParallel"),
        ({**VLLM, "config": {"engine": {"url": "http://x:1"}}}, "config.engine"),
        ({**GROUP, "autoscaling": {"enabled": True}}, "autoscaling.enabled"),
        ({**GROUP, "config": {"adapters": ADAPTERS}, "secrets": {"salt": {"name": "s"}}}, "engine.nodes"),
        ({"model": MODEL, "engine": {"nodes": 2}}, "engine.kind"),
        ({**VLLM, "engine": {"kind": "vllm", "maxRank": 17}}, "maxRank"),
    ],
)
def test_what_cannot_work_names_the_key(values: dict[str, Any], key: str) -> None:
    assert key in refused("model-service", values)
