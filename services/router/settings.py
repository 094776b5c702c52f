"""Settings of the router: which names there are, who answers to them, what may leave, and what keys may spend."""

from __future__ import annotations

import math
import os
import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from contracts.errors import PlatformError
from contracts.settings import Settings
from services.budgets import MILLION
from services.settings import KeyBudget

PREFIX = "FAIRLEAD_ROUTER_"
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:-]{0,127}$")]
_URL = re.compile(r"https?://[^\s/@?#]+(?:/[^\s?#]*)?")


class Backend(Settings):
    """A server with OpenAI's protocol: one of our chat services, vLLM, or an outside provider."""

    url: str = Field(description="address up to /v1, as http://chat:80/v1")
    key: str = Field("", pattern=r"^[A-Z][A-Z0-9_]*$|^$", description="environment variable with its API key")
    outside: bool = Field(False, description="whether what is sent there leaves the house")
    slots: int = Field(0, ge=0, description="requests at a time; others wait by priority; 0: any number")
    attempts: int = Field(2, ge=1, le=5, description="tries of one request before the next target's turn")
    connect_seconds: float = Field(5.0, gt=0, le=60)
    first_token_seconds: float = Field(60.0, gt=0, description="time to the first token, or to a whole answer")
    stall_seconds: float = Field(60.0, gt=0, description="time between two pieces of a stream")
    failures: int = Field(5, ge=1, description="failures in a row after which it is left alone")
    rest_seconds: float = Field(20.0, gt=0, description="time for which it is; then one request tries it")

    @field_validator("url")
    @classmethod
    def _is_address(cls, given: str) -> str:
        if not _URL.fullmatch(given):
            raise ValueError("write http(s)://HOST[:PORT]/v1, without a user or a password")
        return given.rstrip("/")

    def secret(self) -> str:
        """Its API key; empty where it needs none.

        Raises:
            PlatformError: the environment has none.
        """
        if not self.key:
            return ""
        found = os.environ.get(self.key, "").strip()
        if not found:
            fix = "set it from a Secret"
            raise PlatformError(f"environment variable {self.key} has no key", fix=fix, code="bad_settings")
        return found


class Prices(Settings):
    """For a million tokens, in any one currency."""

    prompt: float = Field(0.0, ge=0)
    cached: float | None = Field(None, ge=0, description="of prompts that it had read before; default: as prompt")
    answer: float = Field(0.0, ge=0)


class Target(Settings):
    """A model of a backend, by the name that it has there."""

    backend: str
    model: str
    prices: Prices = Field(default_factory=Prices)


class Route(Settings):
    """A name that clients ask for: `targets` share the requests, those of `fallback` come after them, in order."""

    targets: list[Target] = Field(min_length=1)
    fallback: list[Target] = Field(default_factory=list)
    outside: bool = Field(True, description="whether anything may leave")
    personal: Literal["stay", "mask", "leave"] = Field(
        "stay", description="personal data and secrets that the guard's rules find: where they may be sent outside"
    )
    cache_seconds: float = Field(0.0, ge=0, description="how long an answer without chance is given again; 0: never")
    shared_cache: bool = Field(False, description="whether other keys get it too")


class Budget(KeyBudget):
    """What one key may ask for; 0: any number."""

    cost_per_day: float = Field(0.0, ge=0)

    @property
    def millionths_per_day(self) -> int:
        """Of the currency of the prices."""
        return math.ceil(self.cost_per_day * MILLION)


_ANY = Budget()  # of who has none


class RouterSettings(Settings):
    """The file of the router; what is secret comes from the environment."""

    foreign_environment: ClassVar[frozenset[str]] = frozenset({"service_host", "service_port", "file", "port"})

    backends: dict[Name, Backend] = Field(min_length=1)
    routes: dict[Name, Route] = Field(min_length=1)
    budgets: dict[str, Budget] = Field(default_factory=dict, description="by the key's name; default: of all others")
    redis: str = Field("", description="redis:// of budgets and usage that several routers share; empty: memory")
    keys_file: str = Field("", description="file of API keys (name:sha256[:requests per second][:operator])")
    cache_bytes: int = Field(64 << 20, ge=0, description="of all answers that are kept")
    timeout_seconds: float = Field(300.0, gt=0)
    max_body_bytes: int = Field(8 << 20, ge=1024)

    @model_validator(mode="after")
    def _known(self) -> RouterSettings:
        for name, route in self.routes.items():
            for target in (*route.targets, *route.fallback):
                if target.backend not in self.backends:
                    raise ValueError(f"route {name} names backend {target.backend!r}, which is none of backends")
            inside = [one for one in (*route.targets, *route.fallback) if not self.backends[one.backend].outside]
            if not route.outside and not inside:
                raise ValueError(f"nothing of route {name} may leave, and all its backends are outside")
        return self

    def budget(self, caller: str) -> Budget:
        """Of a key, by its name."""
        return self.budgets.get(caller) or self.budgets.get("default") or _ANY
