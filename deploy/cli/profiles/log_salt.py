"""The key of the hashes in the log of predictions that this machine writes: made once, and kept in the home."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

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
