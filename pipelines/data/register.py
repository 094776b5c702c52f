"""The register of a task's data sources, ``sources.yaml`` in its folder: what may be learned from, and why.

Where a task has a register, a run refuses every source that is not in it, whose consent has ended, that is kept for
longer than was said, or that was not given for the task's purpose. Built-in data needs no entry.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from contracts.errors import PlatformError

FILE = "sources.yaml"
OPEN = "usable"
_BUILT_IN = ("", "built-in")


class Consent(BaseModel):
    """Why rows may be used, and until when; `until` is the last day."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    basis: str = Field(min_length=1)
    until: date | None = None


class Source(BaseModel):
    """One source.

    Attributes:
        where: patterns of addresses or paths, as in a shell; a path that does not begin with / is the end of one.
        purposes: what it was given for.
        personal: whether rows are about people; then `consent`, `collected` and `retention_days` have to be said.
        collected: the first day that rows are of.  retention_days: for how long after it they may be kept.
        contact: whom to ask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: tuple[str, ...] = Field(min_length=1)
    origin: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    purposes: tuple[str, ...] = Field(min_length=1)
    personal: bool
    contact: str = Field(min_length=1)
    consent: Consent | None = None
    collected: date | None = None
    retention_days: int | None = Field(None, ge=1)

    @field_validator("where", "purposes", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    def lacking(self) -> list[str]:
        """What has to be said of personal data and is not."""
        said = {"consent": self.consent, "collected": self.collected, "retention_days": self.retention_days}
        return [name for name, value in said.items() if self.personal and value is None]

    def keeps(self, source: str) -> bool:
        """Whether `source`, a path or an address, is of this entry."""
        whole = source if "://" in source else str(Path(source).expanduser().resolve())
        whole_of = ("/", "*")
        patterns = (one if one.startswith(whole_of) or "://" in one else f"*/{one}" for one in self.where)
        return any(fnmatch.fnmatchcase(whole, pattern) for pattern in patterns)

    @property
    def kept_until(self) -> date | None:
        """The last day that rows may be kept."""
        if self.collected is None or self.retention_days is None:
            return None
        return self.collected + timedelta(days=self.retention_days)

    def state(self, purpose: str, today: date) -> str:
        """`OPEN`, or why it must not be used."""
        if purpose not in self.purposes:
            return f"given for {', '.join(self.purposes)}, not for {purpose}"
        if self.consent and self.consent.until and self.consent.until < today:
            return f"consent ended on {self.consent.until}"
        if self.kept_until and self.kept_until < today:
            return f"kept for longer than said: until {self.kept_until}"
        return OPEN


class Register(BaseModel):
    """All sources of a task, by name; `purpose` is what the task's models are for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: str = Field(min_length=1)
    sources: dict[str, Source] = Field(min_length=1)


def read_register(folder: Path) -> Register | None:
    """The register in a task's folder; None where there is none.

    Raises:
        PlatformError: ``code="bad_register"``: no YAML, an unknown key, or something that is not said.
    """
    import yaml

    file = folder / FILE
    if not file.exists():
        return None
    try:
        found = Register.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as err:
        raise PlatformError(f"{file} is no YAML", detail=str(err), fix="correct the file", code="bad_register") from err
    except ValidationError as err:
        raise _wrong(file, err) from err
    for name, source in found.sources.items():
        if lacking := source.lacking():
            raise PlatformError(
                f"{file}: source {name!r} has personal data and does not say {', '.join(lacking)}",
                fix="say for which reason and until when it may be used (consent), since when it is collected, and how "
                "many days it is kept",
                code="bad_register",
                source=name,
            )
    return found


def _wrong(file: Path, err: ValidationError) -> PlatformError:
    """Each error with its key; of an unknown one those that there are, the likeliest first."""
    lines = []
    for item in err.errors():
        *before, last = map(str, item["loc"]) if item["loc"] else ("(all)",)
        key = ".".join([*before, last])
        if item["type"] == "extra_forbidden":
            kinds: dict[int, type[BaseModel]] = {0: Register, 2: Source}
            known = sorted(kinds.get(len(before), Consent).model_fields)
            near = difflib.get_close_matches(last, known, 1)
            lines.append(f"{key}: unknown key{f'; {near[0]} is meant?' if near else ''}; accepted: {', '.join(known)}")
        else:
            lines.append(f"{key}: {item['msg']}")
    return PlatformError(
        f"{file} is no register", detail="\n  ".join(lines), fix="correct the file", code="bad_register"
    )


def require(folder: Path, source: str, today: date | None = None) -> dict[str, Any]:
    """The entry of `source` as JSON values, for lineage; empty of built-in data, and where there is no register.

    Raises:
        PlatformError: ``code="unregistered_source"`` or ``"source_refused"``; ``"bad_register"``.
    """
    register = read_register(folder)
    if register is None or source in _BUILT_IN:
        return {}
    found = next(((name, one) for name, one in register.sources.items() if one.keeps(source)), None)
    if found is None:
        raise PlatformError(
            f"source {source} is not registered",
            detail="\n  ".join(f"{name}: {', '.join(one.where)}" for name, one in register.sources.items()),
            fix=f"describe it in {folder / FILE}: where, origin, licence, purposes, personal, contact",
            code="unregistered_source",
        )
    name, entry = found
    if (state := entry.state(register.purpose, today or date.today())) != OPEN:
        raise PlatformError(
            f"source {name!r} must not be used: {state}",
            detail=f"{source}, purpose {register.purpose}",
            fix=f"ask {entry.contact}; what is agreed stands in {folder / FILE}",
            code="source_refused",
            source=name,
        )
    return {"name": name, "purpose": register.purpose, **entry.model_dump(mode="json", exclude_none=True)}


def in_words(origin: Mapping[str, Any]) -> list[str]:
    """An entry as `require` gives it, in lines for people."""
    if not origin:
        return []
    lines = [
        f"{origin['name']}: {origin['origin']}; licence {origin['licence']}; contact {origin['contact']}.",
        f"Used for {origin['purpose']}; given for {', '.join(origin['purposes'])}.",
    ]
    if origin["personal"]:
        consent = origin["consent"]
        until = f" until {consent['until']}" if consent.get("until") else ""
        kept = f"collected since {origin['collected']}, kept for {origin['retention_days']} days"
        lines.append(f"Personal data: {consent['basis']}{until}; {kept}.")
    return lines
