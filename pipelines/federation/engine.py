"""Messages between coordinator and sites: NVFlare's cells, of which a site connects outwards only, over mutual TLS.

A cell is one process. The engine checks certificates, compares the name in them with the name that is claimed, and
connects again after an interruption. What is asked and answered is ours: bytes of `messages.packed`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.federation.certificates import AUTHORITY, COORDINATOR, checker, credentials, not_installed
from pipelines.federation.messages import Message, of_error, packed, unpacked

_CHANNEL, _TOPIC = "fairlead", "ask"
_LOOK = 0.05  # seconds between two looks at who is gone
Answers = Mapping[str, Message]


class Hub:
    """The coordinator's end. Use as a context.

    Raises:
        PlatformError: ``code="no_certificate"``, ``code="missing_package"``, ``code="port_taken"``.
    """

    def __init__(self, listen: str, certificates: Path, sites: Iterable[str]) -> None:
        if "[" in listen:
            raise PlatformError(
                f"the engine cannot listen on {listen}: it has IPv4 only",
                fix="--listen 0.0.0.0:8443, or leave global.pods.bindAddress as it is",
                code="bad_config",
            )
        self.sites = tuple(sites)
        self._cell = _cell(COORDINATOR, listen, certificates)
        self.check = checker(certificates)
        self._here: set[str] = set()
        self._changed = threading.Condition()
        self._cell.set_cell_connected_cb(self._came)
        self._cell.set_cell_disconnected_cb(self._went)
        self._threads = ThreadPoolExecutor(max_workers=max(8, len(self.sites)), thread_name_prefix="asking")

    def __enter__(self) -> Hub:
        self._cell.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        _stop(self._cell)

    def present(self) -> set[str]:
        """The sites that are connected."""
        with self._changed:
            return set(self._here)

    def wait_for_sites(self, seconds: float, alive: Callable[[], None] = lambda: None) -> set[str]:
        """Wait until all are connected, or for so long; `alive` may raise to end it."""
        until = time.monotonic() + seconds
        while self.present() != set(self.sites) and (left := until - time.monotonic()) > 0:
            alive()
            with self._changed:
                self._changed.wait(min(left, 1.0))
        return self.present()

    def ask(self, requests: Mapping[str, Message], seconds: float, patient: Callable[[set[str], int], bool]) -> Answers:
        """Send each site its request, and collect what comes within `seconds`.

        A site that goes away is not waited for. `patient` is told who has not answered and how many have, and says
        whether to wait.
        What is no message of ours is an answer with an error.
        """
        until = time.monotonic() + seconds
        asked: dict[Future[Message | None], str] = {
            self._threads.submit(self._one, name, packed(request), seconds): name for name, request in requests.items()
        }
        found: dict[str, Message] = {}
        left = set(asked)
        while left and time.monotonic() < until:
            done, left = wait(left, timeout=_LOOK, return_when=FIRST_COMPLETED)
            found |= {asked[one]: answer for one in done if (answer := one.result()) is not None}
            left -= {one for one in left if asked[one] not in self.present()}
            if left and not patient({asked[one] for one in left}, len(found)):
                break
        return found

    def tell(self, names: Iterable[str], message: Message) -> None:
        """Send without an answer."""
        targets = sorted(set(names) & self.present())
        if targets:
            self._cell.fire_and_forget(_CHANNEL, _TOPIC, targets, _of_engine(packed(message)), optional=True)

    def _one(self, name: str, content: bytes, seconds: float) -> Message | None:
        reply = self._cell.send_request(_CHANNEL, _TOPIC, name, _of_engine(content), timeout=seconds, optional=True)
        if _code(reply) != "ok":
            return None
        try:
            return unpacked(reply.payload, name)
        except PlatformError as err:
            return of_error(err)

    def _came(self, agent: Any) -> None:
        self._note(agent, self._here.add)

    def _went(self, agent: Any) -> None:
        self._note(agent, self._here.discard)

    def _note(self, agent: Any, how: Callable[[str], None]) -> None:
        if (name := agent.get_fqcn()) in self.sites:
            with self._changed:
                how(name)
                self._changed.notify_all()


def attend(name: str, server: str, certificates: Path, answer: Callable[[Message], Message], over: Any) -> None:
    """Be a site: connect to `server` (host:port), and answer what is asked, until the event `over`.

    The connection is made from here, and made again when it is lost. One request is answered at a time; of those that
    have waited, only the newest, by ``number`` of its document.
    """
    cell, lock, newest = _cell(name, server, certificates), threading.Lock(), [0]

    def reply(request: Any) -> Any:
        try:
            if request.get_header("cn__origin") != COORDINATOR:
                return _of_engine(b"", "unauthenticated")
            message = unpacked(request.payload, COORDINATOR)
            number = int(message.document.get("number", 0))
            newest[0] = max(newest[0], number)
            with lock:
                if number < newest[0]:
                    return _of_engine(b"", "service_unavailable")
                return _of_engine(packed(answer(message)))
        except PlatformError as err:
            return _of_engine(packed(of_error(err)))

    cell.register_request_cb(_CHANNEL, _TOPIC, reply)
    cell.start()
    over.wait()
    _stop(cell)


def _cell(name: str, address: str, certificates: Path) -> Any:
    known = credentials(certificates, name)
    try:
        from nvflare.fuel.f3.cellnet.cell_cipher import InvalidCertChain
        from nvflare.fuel.f3.cellnet.core_cell import CoreCell
    except ImportError as err:
        raise not_installed() from err
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)  # what matters is in our own words
    try:
        return CoreCell(fqcn=name, root_url=f"stcp://{address}", secure=True, credentials=known)
    except InvalidCertChain as err:
        raise PlatformError(
            f"the certificate of {name} is not of the authority in {certificates / AUTHORITY}, or has ended",
            detail=str(err),
            fix="take all three files from one run of fairlead federation certificates FOLDER --site NAME --host HOST",
            code="no_certificate",
        ) from err


def _stop(cell: Any) -> None:
    """Stop a cell, and forget it, so that this process may have another of its name."""
    from nvflare.fuel.f3.stats_pool import StatsPoolManager

    cell.stop()
    type(cell).ALL_CELLS.pop(cell.get_fqcn(), None)
    StatsPoolManager.pools.clear()


def _of_engine(content: bytes, code: str = "ok") -> Any:
    from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
    from nvflare.fuel.f3.message import Message as Wire

    return Wire({MessageHeaderKey.RETURN_CODE: code}, content)


def _code(reply: Any) -> str:
    from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey

    return str(reply.get_header(MessageHeaderKey.RETURN_CODE))
