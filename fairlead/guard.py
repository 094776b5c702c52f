"""What every function of the API has: its profile, and errors whose cure is for somebody who calls it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from contracts.errors import PlatformError

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

P = ParamSpec("P")
R = TypeVar("R")


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Errors of `function` name the homes that were not looked in, and arguments as Python spells them."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PlatformError as err:
            from deploy.cli.profiles.homes import located
            from deploy.cli.terminal.advice import as_arguments, trainable

            err.fix = as_arguments(trainable(located(err)))
            raise

    return call


def profile_name(given: str | None) -> str:
    """The profile that is meant: as given, else as the command line takes it."""
    from deploy.cli.terminal.options import DEFAULT_PROFILE, PROFILE_VARIABLE

    return given or os.environ.get(PROFILE_VARIABLE) or DEFAULT_PROFILE


def endpoints_of(profile: str | None) -> Endpoints:
    """The addresses of a profile."""
    from deploy.cli.profiles.loading import load_endpoints

    return load_endpoints(profile_name(profile))


@told
def home(profile: str | None = None) -> Path:
    """The folder on this machine where runs and models of a profile are: the nearest one, from here upwards."""
    return endpoints_of(profile).scratch()
