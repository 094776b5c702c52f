"""The key of the hashes in the log of predictions that this machine writes: made once, and kept in the home."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.profiles.loading import load_deployment

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

FILE, VARIABLE = "predictions.salt", "FAIRLEAD_SERVICE_PREDICTIONS__SALT"


def home_salt(home: Path) -> str:
    """The home's salt; made where there is none, in a file that its owner alone can read.

    Raises:
        PlatformError: ``code="no_salt"`` when it can be neither read nor made.
    """
    file = home / FILE
    try:
        if not file.exists():
            home.mkdir(parents=True, exist_ok=True)
            staged = home / f".{FILE}.{os.getpid()}-{secrets.token_hex(4)}"
            staged.touch(0o600)
            staged.write_text(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):  # another command made it meanwhile: the first one counts
                os.link(staged, file)
            staged.unlink()
        return file.read_text().strip()
    except OSError as err:
        raise PlatformError(
            "the prediction log has no salt",
            detail=f"{file}: {err.strerror}",
            fix=f"make the file readable, or set {VARIABLE}",
            code="no_salt",
        ) from err


def found_salt(home: Path, predictions: str, settings: Mapping[str, Any]) -> str:
    """The salt that a log was written with: from the environment, a model's settings, or the home; "" for none.

    A log in S3 is of other machines as well, whose salt is not this home's.
    """
    given = os.environ.get(VARIABLE) or str(settings.get("predictions.salt") or "")
    if given or "://" in predictions or not (home / FILE).exists():
        return given
    return home_salt(home)


def salt_of(endpoints: Endpoints, profile: str, model: str) -> str:
    """The salt of the hashes in the log of a model.

    Raises:
        PlatformError: ``code="random_salt"``: nothing can be found by a key.
    """
    config: dict[str, Any] = load_deployment(profile, model).config.get("predictions") or {}
    settings = {f"predictions.{name}": value for name, value in config.items()}
    salt = found_salt(endpoints.path("home"), endpoints.uri("predictions"), settings)
    if not salt and config.get("entities") != "keep":
        raise PlatformError(
            f"the records of one entity of {model} cannot be found",
            detail="the log has hashes of its keys, and their salt is not known here; services without one invent it",
            fix=f"give the services' salt in {VARIABLE}; if they have none, drop old days with "
            f"fairlead predictions compact {model} --keep-days 30, and set secrets.salt of the release",
            code="random_salt",
        )
    return salt
