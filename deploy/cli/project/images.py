"""``fairlead images``: every image that an installation pulls, and how to copy them to a registry of one's own.

They are read from the rendered charts, wherever a chart names one: a third of them stands in arguments and variables.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from contracts.errors import PlatformError
from deploy.cli.cluster.kube import output, program
from deploy.cli.profiles.loading import deployment_file, load_profile
from deploy.cli.terminal.output import emit, table

if TYPE_CHECKING:
    from rich.console import Console

_ROOT = Path(__file__).resolve().parents[3]
_MARK = "registry.invalid"  # stands for the registry of every image, so that each can be found
_REFERENCE = re.compile(rf"{re.escape(_MARK)}/([\w./-]+):([\w.-]+)(?:@(sha256:[0-9a-f]{{64}}))?")
_KINDS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1",
                 "docker.distribution.manifest.v2")
)  # fmt: skip
_PATIENCE = 20.0  # seconds for an answer of a registry


@dataclass(frozen=True, kw_only=True, order=True)
class Image:
    """An image by its registry, repository and version; digest: "" where nothing says it."""

    registry: str
    repository: str
    tag: str
    digest: str = ""
    what: str = ""

    @property
    def source(self) -> str:
        """Its reference, by the digest where that is known."""
        return f"{self.registry}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")

    def at(self, registry: str) -> str:
        """Its reference in another registry, as ``global.imageRegistry`` names it."""
        return f"{registry}/{self.repository}:{self.tag}"


def show_images(profile: str, values: Sequence[Path], mirror: str, digests: bool, check: bool, as_json: bool) -> None:
    """List the images; with `mirror` the commands that copy them there, with `check` whether all are there.

    digests: ask their registries for the digests that the charts do not say.

    Raises:
        PlatformError: no helm, values that a chart refuses, or ``code="missing_images"``: the mirror lacks some.
    """
    if check and not mirror:
        raise PlatformError("--check looks into a mirror", fix="name it: --check --mirror REGISTRY", code="bad_option")
    found = images_of(profile, values)
    if digests:
        asked = [(image.registry, image.repository, image.tag) for image in found]
        found = [
            replace(image, digest=image.digest or digest) for image, digest in zip(found, _all(asked), strict=True)
        ]
    document: dict[str, Any] = {
        "images": [{**asdict(image), "source": image.source} for image in found],
        "copy": [f"skopeo copy --all docker://{image.source} docker://{image.at(mirror)}" for image in found if mirror],
    }
    if check:
        _checked(found, mirror)
    emit(document, as_json, lambda to: _show(to, found, document["copy"], mirror if check else ""))


def images_of(profile: str, values: Sequence[Path] = ()) -> list[Image]:
    """The images of the platform's chart with these values, of models' releases, and of the profile's steps."""
    charts, known = _ROOT / "helm", _known()
    models = charts / "model-service"
    renders = [
        ("fairlead", charts / "platform", values, ()),
        ("model", models, [models / "ci" / "minimal-values.yaml"], ("rollouts.enabled=true",)),
        *(("model", models, [models / "ci" / "minimal-values.yaml", file], ()) for file in _with_engines(profile)),
    ]
    found: dict[str, Image] = {}
    for release, chart, files, settings in renders:
        given = [word for file in files for word in ("-f", str(file))] + [f"--set={each}" for each in settings]
        marked, plain = (
            output([program("helm"), "template", release, str(chart), *given, f"--set=global.imageRegistry={registry}"])
            for registry in (_MARK, "")
        )
        for repository, tag, digest in _REFERENCE.findall(marked):
            name = f"{repository}:{tag}"
            image = Image(registry=_registry_before(name, plain), repository=repository, tag=tag, digest=digest)
            said = known.get(f"{image.registry}/{name}", {})
            found[name] = replace(image, digest=digest or said.get("digest", ""), what=said.get("what", "of fairlead"))
    steps = load_profile(profile).cluster
    if steps and (here := re.fullmatch(r"([\w.-]+(?::\d+)?)/([\w./-]+):([\w.-]+)(?:@(sha256:\w{64}))?", steps.image)):
        registry, repository, tag, digest = here.groups(default="")
        image = Image(registry=registry, repository=repository, tag=tag, digest=digest, what="steps of the profile")
        found.setdefault(f"{repository}:{tag}", image)
    return sorted(found.values())


def _registry_before(name: str, text: str) -> str:
    """The registry before an image in the objects of a chart, which are long: only lines with the image are read."""
    before = re.compile(rf"([\w.-]+(?::\d+)?)/{re.escape(name)}")
    told = (before.search(line) for line in text.splitlines() if name in line)
    return next((found[1] for found in told if found), "docker.io")


def _with_engines(profile: str) -> list[Path]:
    """The values of the profile's models that have an engine in an image of its own."""
    files = sorted(deployment_file(profile, "any").parent.glob("*.yaml"))
    told = [(file, yaml.safe_load(file.read_text(encoding="utf-8")) or {}) for file in files]
    return [file for file, values in told if (values.get("engine") or {}).get("kind") == "vllm"]


def _known() -> dict[str, dict[str, str]]:
    """What ``deploy/stack.yaml`` says of the images of others."""
    stack = yaml.safe_load((_ROOT / "deploy" / "stack.yaml").read_text(encoding="utf-8"))
    return {f"{item['image']}:{item['version']}": item for item in stack["images"]}


def _checked(found: Sequence[Image], mirror: str) -> None:
    have = _all([(mirror, image.repository, image.tag) for image in found])
    lacking = [image for image, digest in zip(found, have, strict=True) if not digest]
    other = [image for image, digest in zip(found, have, strict=True) if digest and image.digest not in ("", digest)]
    if lacking or other:
        bad = [*lacking, *other]
        raise PlatformError(
            f"{mirror} {'lacks' if lacking else 'has another content of'} {bad[0].repository}:{bad[0].tag}"
            + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""),
            detail=", ".join(f"{image.repository}:{image.tag}" for image in bad),
            fix="; ".join(f"skopeo copy --all docker://{image.source} docker://{image.at(mirror)}" for image in bad),
            code="missing_images",
            images=[image.at(mirror) for image in bad],
        )


def _all(asked: Sequence[tuple[str, str, str]]) -> list[str]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda each: digest_in(*each), asked))


def digest_in(registry: str, repository: str, tag: str) -> str:
    """The digest of an image in a registry, "" where it is not there; asked for as anybody may.

    Raises:
        PlatformError: ``unreachable`` or ``no_access``.
    """
    host = {"docker.io": "registry-1.docker.io"}.get(registry, registry)
    scheme = "http" if host.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    url, headers = f"{scheme}://{host}/v2/{repository}/manifests/{tag}", {"Accept": _KINDS}
    for last in (False, True):
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD", headers=headers), timeout=_PATIENCE
            ) as answer:
                return str(answer.headers.get("Docker-Content-Digest") or "unknown")
        except urllib.error.HTTPError as err:
            challenge = err.headers.get("WWW-Authenticate", "")
            if err.code == 404:
                return ""
            if err.code != 401 or last or not challenge.startswith("Bearer "):
                fix = "see what it says by: skopeo inspect docker://..., which knows your login"
                raise PlatformError(
                    f"the registry {registry} refused to tell of {repository}:{tag}",
                    detail=str(err),
                    fix=fix,
                    code="no_access",
                ) from err
            headers["Authorization"] = f"Bearer {_token(challenge)}"
        except OSError as err:
            raise PlatformError(
                f"the registry {registry} does not answer", detail=str(err), fix="correct its name", code="unreachable"
            ) from err
    raise AssertionError("the second try returns or raises")


def _token(challenge: str) -> str:
    """What a registry gives to anybody who asks, by the address that it names."""
    said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({key: said[key] for key in ("service", "scope") if key in said})
    if not (realm := said.get("realm", "")).startswith(("https://", "http://127.0.0.1")):
        return ""
    with urllib.request.urlopen(f"{realm}?{query}", timeout=_PATIENCE) as answer:
        document = json.load(answer)
    return str(document.get("token") or document.get("access_token") or "")


def _show(to: Console, found: Sequence[Image], copy: Sequence[str], checked: str) -> None:
    made = table("image", "digest", "what")
    for image in found:
        made.add_row(f"{image.registry}/{image.repository}:{image.tag}", image.digest[:19], image.what)
    to.print(made)
    for command in _lines(copy):
        to.print(command, markup=False, soft_wrap=True)
    if checked:
        to.print(f"Checked  {checked} has all {len(found)}; install with --set global.imageRegistry={checked}")


def _lines(copy: Sequence[str]) -> Iterator[str]:
    if copy:
        yield "Copy them:"
        yield from copy
