"""Self-contained pages of HTML from the templates of this folder; what is not markup is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pipelines.formatting import number


def render(template: str, **values: Any) -> str:
    """The page of a template, which extends ``page.html``."""
    return str(_environment().get_template(template).render(**values))


@cache
def _environment() -> Any:
    """One for all pages of a process: it keeps the templates that it has compiled."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: files("pipelines.pages").joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters |= {"number": number, "bars": bars}
    return environment


def bars(heights: Sequence[float], width: int = 132, height: int = 26) -> Any:
    """Bars of heights from 0 to 1 as SVG, which has no text."""
    import markupsafe

    step = width / max(len(heights), 1)
    drawn = "".join(
        f'<rect x="{at * step:.1f}" y="{height * (1 - each):.1f}" width="{max(step - 1, 1):.1f}" '
        f'height="{height * each:.1f}"/>'
        for at, each in enumerate(max(0.04, float(given)) for given in heights)
    )
    return markupsafe.Markup(f'<svg class="bars" width="{width}" height="{height}">{drawn}</svg>')
