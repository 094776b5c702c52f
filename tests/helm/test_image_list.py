"""``fairlead images``: nothing that an installation pulls is left out, and a mirror that lacks an image is named."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from contracts.errors import PlatformError
from deploy.cli.cluster.cluster_settings import Cluster, Profile
from deploy.cli.project import images as listing
from deploy.cli.releases.release_values import first_values
from tests.helm.program import CHARTS, find, helm

DIGEST = "sha256:" + "ab" * 32
SIGN_IN = {
    "enabled": True,
    "issuer": "https://id.example.com",
    "existingSecret": "oidc",
    "people": {"ada": "ada@example.com"},
    "url": "https://{user}.example.com",
}


@pytest.fixture
def with_helm(monkeypatch: pytest.MonkeyPatch) -> None:
    path = find("helm") or pytest.skip("helm is not on PATH")
    monkeypatch.setattr(listing, "program", lambda name: path)


class Registry(BaseHTTPRequestHandler):
    """A registry that gives a token to anybody and lacks one image."""

    lacking = "kubeflow/kfp-launcher"
    asked: list[str] = []  # noqa: RUF012 - of all requests

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        where = f"http://{self.headers['Host']}"
        if self.headers.get("Authorization") != "Bearer anybody":
            self.send_response(401)
            challenge = f'Bearer realm="{where}/token",service="here",scope="repository:{self.path}:pull"'
            self.send_header("WWW-Authenticate", challenge)
        elif f"/v2/{self.lacking}/" in self.path:
            self.send_response(404)
        else:
            self.send_response(200)
            self.send_header("Docker-Content-Digest", DIGEST)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"token": "anybody" if "service=here" in self.path else ""}).encode())

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_registry_says_the_digest_or_that_it_has_none(registry: str) -> None:
    assert listing.digest_in(registry, "library/redis", "7") == DIGEST
    assert listing.digest_in(registry, Registry.lacking, "1") == ""
    with pytest.raises(PlatformError, match="does not answer"):
        listing.digest_in("127.0.0.1:1", "library/redis", "7")


@pytest.mark.usefixtures("with_helm")
def test_the_list_is_what_charts_name_in_any_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tmp_path / "values.yaml"
    everything = {
        "pipelines": {"ui": {"enabled": True}, "images": {"driver": {"digest": DIGEST}}},
        "monitoring": {"alertmanager": {"enabled": True, "existingSecret": "a"}},
        "workbench": {"users": ["ada"], "oidc": SIGN_IN},
        "global": {"imageRegistry": "mirror.example:5000"},
    }
    values.write_text(yaml.safe_dump(everything))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "plain.yaml").write_text("model: {modality: chat}\n")
    monkeypatch.setattr(listing, "deployment_file", lambda profile, model: tmp_path / "models" / f"{model}.yaml")
    without = listing.images_of("cluster", [values])
    written = {"model": {"modality": "chat"}, "engine": {"kind": "vllm"}, "gpu": {"count": 1}}
    (tmp_path / "models" / "chat.yaml").write_text(yaml.safe_dump(written))
    found = listing.images_of("cluster", [values])
    assert [one.repository for one in found if one not in without] == ["vllm/vllm-openai"]
    names = {f"{image.registry}/{image.repository}:{image.tag}" for image in found}
    stack = yaml.safe_load((CHARTS.parent / "deploy" / "stack.yaml").read_text())["images"]
    ours = {name for name in names if name.startswith("ghcr.io/fairlead/")}
    assert names - ours == {f"{item['image']}:{item['version']}" for item in stack}
    assert {name.split(":")[0] for name in ours} == {"ghcr.io/fairlead/pipelines", "ghcr.io/fairlead/service"}
    (driver,) = [image for image in found if image.repository.endswith("kfp-driver")]
    assert (driver.digest, driver.source) == (DIGEST, f"ghcr.io/kubeflow/kfp-driver@{DIGEST}")
    done = helm("template", "fairlead", str(CHARTS / "platform"), "-f", str(values))
    mirrored = set(re.findall(r"mirror\.example:5000/([\w./-]+:[\w.-]+)", done.stdout))
    assert mirrored <= {f"{image.repository}:{image.tag}" for image in found}
    assert not re.search(r"(docker\.io|ghcr\.io|quay\.io|gcr\.io)/[\w./-]+:", done.stdout), "a second registry"


@pytest.mark.usefixtures("with_helm")
def test_a_mirror_that_lacks_an_image_is_named_before_an_install(
    registry: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PlatformError, match=r"lacks kubeflow/kfp-launcher:[\d.]+\n") as caught:
        listing.show_images("cluster", [], registry, digests=False, check=True, as_json=True)
    assert caught.value.fix.startswith("skopeo copy --all docker://ghcr.io/kubeflow/kfp-launcher:")
    monkeypatch.setattr(Registry, "lacking", "nothing")
    listing.show_images("cluster", [], registry, digests=False, check=True, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert len(document["copy"]) == len(document["images"]) > 10
    assert all(f" docker://{registry}/" in command for command in document["copy"])


def test_what_the_command_line_deploys_comes_from_the_same_registry() -> None:
    cluster = Cluster(image_registry="mirror.example:5000", image_pull_secrets=("pull",))
    assert cluster.image.startswith("mirror.example:5000/fairlead/pipelines:")
    assert Cluster(image_registry="mirror.example", image="own/steps:1").image == "own/steps:1"
    values = first_values(Profile(cluster=cluster), features=False)
    assert values["global"] == {"imageRegistry": "mirror.example:5000", "imagePullSecrets": [{"name": "pull"}]}
    assert "global" not in first_values(Profile(cluster=Cluster()), features=False)


@pytest.mark.usefixtures("with_helm")
def test_the_chart_tells_its_own_parts_of_the_mirror() -> None:
    given = ("--set", "global.imageRegistry=mirror.example,global.imagePullSecrets[0].name=pull")
    done = helm("template", "fairlead", str(CHARTS / "platform"), *given)
    told = [text for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each and each["kind"] == "ConfigMap"
            for text in each["data"].values() if "kfp:" in text]  # fmt: skip
    assert told
    for text in told:
        said = Cluster.model_validate(yaml.safe_load(text)["cluster"])
        assert (said.image_registry, said.image_pull_secrets) == ("mirror.example", ("pull",))
        assert said.image.startswith("mirror.example/")
