"""Templates: each page in the language and colours of its reader; what is undefined is an error, markup is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse

from services.console import formats, plots
from services.console.words import LANGUAGES, chosen_language, said, state_words
from services.request_options import Holder

HERE = Path(__file__).parent
THEMES = ("auto", "light", "dark")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals.update(plots=plots, state_class=plots.state_class)
_ENVIRONMENT.filters.update(
    number=formats.number, percent=formats.percent, rate=formats.rate, duration=formats.duration,
    moment=formats.moment, short=formats.short,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Who reads a page, what that one may do, and how the page should look."""

    name: str
    operator: bool
    language: str
    theme: str

    @classmethod
    def of(cls, request: Request, holder: Holder) -> Reader:
        """From cookies, and the browser's languages."""
        theme = request.cookies.get("theme", "")
        given = request.cookies.get("lang", "")
        language = given if given in LANGUAGES else chosen_language(request.headers.get("accept-language", ""))
        theme = theme if theme in THEMES else "auto"
        return cls(name=holder.name, operator=holder.operator, language=language, theme=theme)

    def say(self, text: str, **values: object) -> str:
        """A text of the catalogue in the reader's language."""
        return said(self.language, text, **values)


def page(
    request: Request, template: str, values: Mapping[str, Any], status: int = 200, *, refresh: int = 0
) -> HTMLResponse:
    """A page by its template; `refresh`: seconds after which its live parts are asked for again."""
    reader: Reader = request.state.reader
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    common = {
        "t": reader.say,
        "words": state_words(reader.language),
        "reader": reader,
        "path": path if request.method == "GET" else request.url.path,
        "refresh": refresh,
        "place": request.app.state.source.place,
        "guarded": request.app.state.access.guarded,
        "section": values.get("section", ""),
    }
    return HTMLResponse(_ENVIRONMENT.get_template(f"{template}.html").render({**common, **values}), status_code=status)
