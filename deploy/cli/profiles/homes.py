"""Which folder holds everything of a profile on this machine, and which other ones this user has.

A home that a profile names relatively (``.fairlead``) is looked for as git looks for its repository: in the current
folder, then in each parent. FAIRLEAD_HOME and an absolute path in a profile come before that. Where there is none, it
is one in the current folder, made by the first command that writes. A folder of another user is not taken.
"""

from __future__ import annotations

import os
from pathlib import Path

from contracts.errors import PlatformError

_MOST = 50
_ASKED_IN_VAIN = ("unknown_model", "unknown_run", "unknown_dataset")


def find_home(home: str) -> Path:
    """The absolute folder that `home` of a profile means for a command that starts here."""
    given = Path(home).expanduser()
    if given.is_absolute():
        return given
    here = Path.cwd()
    return next((place / given for place in (here, *here.parents) if _ours(place / given)), here / given)


def _ours(folder: Path) -> bool:
    try:
        return folder.is_dir() and folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def known_homes() -> list[Path]:
    """Homes that this user's commands used and that are still there, the latest first."""
    try:
        lines = _list_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(line) for line in dict.fromkeys(lines) if line and Path(line).is_dir()]


def remember(home: Path) -> None:
    """Note a home that exists, so that commands started elsewhere can name it; never an error."""
    known = known_homes()
    if not home.is_dir() or home in known:
        return
    file = _list_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(f"{file.name}.{os.getpid()}")
        staged.write_text("".join(f"{path}\n" for path in [home, *known][:_MOST]), encoding="utf-8")
        os.replace(staged, file)
    except (OSError, UnicodeEncodeError):
        return  # a user without a folder to write in has no list


def _list_file() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()
    return root / "fairlead" / "homes"


def elsewhere(home: Path) -> str:
    """A sentence that names the other homes; empty when none is known."""
    others = [str(path) for path in known_homes() if path != home]
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"other homes: {', '.join(others[:3])}{more}; use one of them: export FAIRLEAD_HOME={others[0]}"


def located(error: PlatformError) -> PlatformError:
    """The error of something that was not found, with the homes where it was not looked for."""
    home = error.context.get("home")
    if error.code in _ASKED_IN_VAIN and home and (others := elsewhere(Path(str(home)))):
        error.detail = f"{error.detail}\n  {others}" if error.detail else others
    return error
