"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_PROFILE, PROFILE_VARIABLE = "local", "FAIRLEAD_CLI_PROFILE"
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        "-p",
        envvar=PROFILE_VARIABLE,
        help="Where things live: a name below deploy/env/, or the path of a YAML file.",
        show_envvar=False,
    ),
]
Env = Annotated[
    str,
    typer.Option("--env", "-e", help="The cluster: a profile below deploy/env/ with a section `cluster`, or its file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
