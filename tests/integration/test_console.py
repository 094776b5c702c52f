"""The console in a real browser: every page, in both languages and both colour schemes, wide and narrow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from contracts.bundle import read_bundle
from contracts.endpoints import Endpoints
from deploy.cli.console.home_source import HomeSource
from deploy.cli.console.releases import Machine
from services.console.app import build_app
from services.server.auth import KeyRing, make_key
from services.server.bento import asgi_app
from services.server.lifecycle import MODALITIES
from services.settings import ServiceSettings
from tests.console_home import register
from tests.console_source import MadeSource
from tests.image_bundle import picture

playwright = pytest.importorskip("playwright.sync_api", reason="the extra dev is not installed: no playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra dev is not installed: no axe")

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no /usr/bin/chromium: apt-get install chromium"),
]
PICTURES = Path(__file__).parents[2] / "build" / "console"
PAGES = {
    "models": "/",
    "model": "/models/fraud",
    "broken": "/models/broken",
    "try": "/models/fraud/try?by=features",
    "runs": "/runs",
    "run": "/runs/fraud-20261128-090000-aa11",
    "failed-run": "/runs/news-1",
    "rollouts": "/rollouts",
    "alerts": "/alerts",
    "audit": "/audit?page=2",
    "nowhere": "/nowhere",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


class Served:
    """The console at a port of this machine."""

    def __init__(self, source: Any = None, keys: KeyRing | None = None, app: Any = None) -> None:
        self.source = source
        config = uvicorn.Config(app or build_app(source, keys), port=0, log_level="error", access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started and time.monotonic() < until:
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def console() -> Iterator[Served]:
    with Served(MadeSource(models=12)) as served:
        yield served


class Watched:
    """A page of a browser, with what it complained about and which hosts it asked."""

    def __init__(self, browser: Any, **look: Any) -> None:
        self.context = browser.new_context(**look)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _said(self, message: Any) -> None:
        missing = "status of 404" in message.text and "/nowhere" in message.location.get("url", "")
        if message.type in ("error", "warning") and not missing:
            self.complaints.append(message.text)


def faults(page: Any) -> list[str]:
    """What axe finds that keeps people out."""
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("zh-CN", "dark")])
def test_every_page_can_be_used_by_everybody_and_asks_nobody_else(browser, console, language, scheme):
    look = Watched(browser, locale=language, color_scheme=scheme, viewport={"width": 1280, "height": 800})
    page = look.page
    PICTURES.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for name, path in PAGES.items():
        page.goto(f"{console.url}{path}")
        assert page.locator("html").get_attribute("lang") == {"en": "en", "zh-CN": "zh-Hans"}[language]
        page.screenshot(path=PICTURES / f"{name}-{scheme}.png", full_page=True)
        found += [f"{name}: {fault}" for fault in faults(page)]
        page.set_viewport_size({"width": 400, "height": 800})
        if (width := page.evaluate("document.documentElement.scrollWidth")) > 400:
            found.append(f"{name}: {width} px wide")
        page.screenshot(path=PICTURES / f"{name}-{scheme}-narrow.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 800})
    assert not found
    assert not look.complaints
    assert {url.split("/")[2] for url in look.asked} == {console.url.removeprefix("http://")}
    look.context.close()


def test_a_reader_logs_in_tries_a_model_and_changes_colours_by_keyboard(browser, tmp_path):
    key, line = make_key("mara")
    (tmp_path / "keys").write_text(line)
    with Served(MadeSource(), KeyRing(str(tmp_path / "keys"))) as console:
        look = Watched(browser, locale="en", viewport={"width": 1280, "height": 800})
        page = look.page
        page.goto(f"{console.url}/models/fraud/try?by=features")
        assert not faults(page)
        page.keyboard.type(key)  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Try fraud").wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.get_by_label("amount").fill("120.5")
        page.get_by_label("country").select_option("DE")
        page.get_by_label("with reasons").check()
        page.get_by_role("button", name="Ask the model").press("Enter")
        page.get_by_role("heading", name="Answer", exact=True).wait_for()
        assert console.source.asked[0][1]["country"] == "DE"
        assert not faults(page)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Colours").press("Enter")
        page.locator('html[data-theme="dark"]').wait_for(state="attached")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
        assert not look.complaints
        look.context.close()


def test_live_parts_follow_what_is_new_without_a_reload(browser, console):
    look = Watched(browser, locale="en")
    look.page.goto(f"{console.url}/rollouts")
    look.page.evaluate("window.kept = true")
    console.source.word = " anew"
    look.page.get_by_text("anew").first.wait_for(timeout=8000)
    assert look.page.evaluate("window.kept")
    assert not look.complaints
    console.source.word = ""
    look.context.close()


BUNDLES = Path(__file__).parents[1] / "version_1"
MODELS = ("payments", "articles", "shades")


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The console over a home whose models are served."""
    home = tmp_path_factory.mktemp("home")
    register(home, {name: [BUNDLES / name] for name in MODELS})
    with contextlib.ExitStack() as stack:
        places = {name: stack.enter_context(Served(app=model_app(BUNDLES / name))).url for name in MODELS}
        source = HomeSource(Endpoints(home=str(home)), served=Machine("local", places), steer=print)
        yield stack.enter_context(Served(source))


def model_app(bundle: Path) -> Starlette:
    """The service of a bundle, as its process has it."""
    runtime = MODALITIES.get(read_bundle(bundle).document.modality).make()

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        await runtime.start(ServiceSettings(bundle=str(bundle), version="3"))
        await runtime.loaded()
        yield
        await runtime.stop()

    return Starlette(routes=[Mount("/", app=asgi_app(runtime))], lifespan=lifespan)


def asked(page: Any) -> str:
    """What the card of the answer says once the form is sent."""
    page.get_by_role("button", name="Ask the model").press("Enter")
    card = page.locator(".answer")
    card.wait_for()
    assert not faults(page)
    return str(card.inner_text())


def test_an_image_a_text_and_a_row_are_asked_in_a_browser(browser, tried, tmp_path):
    look = Watched(browser, locale="en", viewport={"width": 1280, "height": 800})
    page = look.page
    for shade, label in ((250, "bright"), (3, "dark")):
        page.goto(f"{tried.url}/models/shades/try")
        (tmp_path / "picture.png").write_bytes(picture(shade))
        page.get_by_label("image").set_input_files(tmp_path / "picture.png")
        assert f"label\n{label}" in asked(page)
    (tmp_path / "no.png").write_text("no picture")
    page.get_by_label("image").set_input_files(tmp_path / "no.png")
    page.get_by_role("button", name="Ask the model").press("Enter")
    page.locator("[aria-invalid=true]").wait_for()
    page.goto(f"{tried.url}/models/articles/try")
    page.get_by_label("title").fill("The team wins the final")
    page.get_by_label("content").fill("A late goal decides the match.")
    page.get_by_label("with reasons").check()
    assert "label\nsport" in asked(page)
    page.goto(f"{tried.url}/models/payments/try")
    page.get_by_label("amount").fill("900")
    page.get_by_label("country").select_option("US")
    page.get_by_label("with reasons").check()
    said = asked(page)
    assert "Reasons" in said
    assert "amount" in said
    assert {url.split("/")[2] for url in look.asked} == {tried.url.removeprefix("http://")}
    look.context.close()
