"""A collection of MongoDB by its address, which says no secret: records, logs and errors may hold it.

``mongodb://[user@]host[:port][,host...]/database/collection[?key=value&...]``, or ``mongodb+srv://``. Of the keys these
are ours, and all others are the driver's, such as ``authSource``, ``replicaSet`` and ``tls``:

filter: of the documents, as extended JSON: ``filter={"country": "DE"}``; ``&`` in it is written ``%26``.
fields: those that are read, by dotted names with commas between; all without it.
grows: a field that only grows, such as the time of the last change: what was read before is not read again.
key: of a collection that is written to: the columns that a document is known by; ``_id`` without it.
raw: of a database that dataset versions are written to: ``all`` keeps rows as they came whatever is taken out of them.

User and password come from ``FAIRLEAD_MONGODB_USERNAME`` and ``FAIRLEAD_MONGODB_PASSWORD``. pymongo is imported when a
connection is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from contracts.errors import PlatformError

USERNAME, PASSWORD = "FAIRLEAD_MONGODB_USERNAME", "FAIRLEAD_MONGODB_PASSWORD"
_SCHEMES = ("mongodb://", "mongodb+srv://")
_FORM = "mongodb://host:27017/database/collection"
_OURS = ("filter", "fields", "grows", "key", "raw")
_SECRET = ("tlscertificatekeyfilepassword", "authmechanismproperties", "proxypassword")
_TIMEOUTS = {"serverselectiontimeoutms": 5_000, "sockettimeoutms": 120_000}


@dataclass(frozen=True, kw_only=True)
class Address:
    """A collection, and what of it is meant. text: the address as it was given."""

    text: str = field(repr=False)
    scheme: str
    user: str
    hosts: str
    database: str
    collection: str
    filter: dict[str, Any]
    fields: tuple[str, ...]
    grows: str
    key: tuple[str, ...]
    raw: bool
    options: tuple[tuple[str, str], ...]

    @property
    def place(self) -> str:
        """Server and collection, for people."""
        return f"{self.scheme}{self.hosts}/{self.database}/{self.collection}"

    def is_same_place(self, other: Address) -> bool:
        """Whether both name one collection, by the same name of its server."""
        return self.place == other.place


def is_collection(address: str) -> bool:
    """Whether an address names a collection of MongoDB."""
    return address.startswith(_SCHEMES)


def parse(text: str) -> Address:
    """What an address says.

    Raises:
        PlatformError: ``code="bad_address"``, without the text, which may hold a password.
    """
    scheme, _, rest = text.partition("://")
    place, _, query = rest.partition("?")
    login, _, place = place.rpartition("@")
    if ":" in login:
        raise _bad("holds a password", f"leave it out, and set {PASSWORD} in the environment")
    hosts, *names = place.split("/")
    if not hosts or len(names) < 2 or not all(names):
        raise _bad("names no collection", f"write {_FORM}")
    given = parse_qsl(query, keep_blank_values=True)
    if secret := next((key for key, _ in given if key.lower() in _SECRET), ""):
        raise _bad(f"holds {secret}, which may be a secret", "use a way to log in that needs none in the address")
    ours = {key: value for key, value in given if key in _OURS}
    return Address(
        text=text,
        scheme=f"{scheme}://",
        user=login,
        hosts=hosts,
        database=names[0],
        collection="/".join(names[1:]),
        filter=_filter(ours.get("filter", "")),
        fields=_names(ours.get("fields", "")),
        grows=ours.get("grows", ""),
        key=_names(ours.get("key", "")),
        raw=_all(ours.get("raw", "")),
        options=tuple((key, value) for key, value in given if key not in _OURS),
    )


def parse_database(text: str) -> Address:
    """What the address of a database says, ``mongodb://host/database?key=value``; its collection means nothing.

    Raises:
        PlatformError: ``code="bad_address"``, without the text.
    """
    place, _, query = text.partition("?")
    names = place.partition("://")[2].rpartition("@")[2].split("/")[1:]
    if not is_collection(text) or len(names) != 1 or not names[0]:
        raise _bad("store names no database, or more", "write mongodb://host:27017/database")
    return parse(f"{place}/documents" + (f"?{query}" if query else ""))


def field_name(name: str) -> str:
    """The name of a field for a column: no dot and no dollar, which mean something in names."""
    return name.replace("%", "%25").replace(".", "%2E").replace("$", "%24")


def _all(text: str) -> bool:
    if text not in ("", "all"):
        raise _bad(f"says raw={text}", "write raw=all, or leave it out")
    return text == "all"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _filter(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    json_util = driver("bson.json_util")
    try:
        found = json_util.loads(text)
    except (ValueError, TypeError, driver("bson.errors").BSONError) as err:
        raise _bad("has a filter that is not JSON", 'write filter={"field": "value"}, in quotes', str(err)) from err
    if not isinstance(found, dict):
        raise _bad("has a filter that is no object", 'write filter={"field": "value"}, in quotes')
    return found


def _bad(what: str, fix: str, detail: str = "") -> PlatformError:
    return PlatformError(f"the address of a MongoDB collection {what}", detail=detail, fix=fix, code="bad_address")


def driver(module: str) -> Any:
    """A module of pymongo or bson.

    Raises:
        PlatformError: ``code="missing_package"``.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise PlatformError(
            "reading and writing MongoDB needs the package pymongo",
            fix="pip install 'fairlead[mongodb]'",
            code="missing_package",
        ) from err


@contextmanager
def opened(address: Address) -> Iterator[Any]:
    """The collection, as pymongo knows it; what the server or the driver refuses is named.

    Raises:
        PlatformError: ``unreachable``, ``no_access`` or ``store_refused``.
    """
    errors = driver("pymongo.errors")
    user, password = address.user or os.environ.get(USERNAME, ""), os.environ.get(PASSWORD, "")
    if password and not user:
        raise PlatformError(f"{PASSWORD} is set, and no user", fix=f"set {USERNAME} too", code="no_access")
    login = f"{quote_plus(user)}:{quote_plus(password)}@" if password else f"{user}@" if user else ""
    given = {key.lower() for key, _ in address.options}
    waits = [(key, str(value)) for key, value in _TIMEOUTS.items() if key not in given]
    uri = f"{address.scheme}{login}{address.hosts}/?{urlencode([*address.options, *waits])}"
    try:
        with driver("pymongo").MongoClient(uri, appname="fairlead", uuidRepresentation="standard") as client:
            yield client[address.database][address.collection]
    except errors.PyMongoError as err:
        raise named(err, address, password) from err


_PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between tries, while a server is away


def write(
    collection: Any, address: Address, requests: Sequence[Any], tell: Callable[[str], object] = lambda text: None
) -> None:
    """Write, and again where the server did not answer: the same documents, so requests must say the whole of them.

    Args:
        tell: is told, for people, each time it is asked again.
    """
    errors = driver("pymongo.errors")
    for wait in (*_PATIENCE, None):
        try:
            collection.bulk_write(list(requests), ordered=False)
            return
        except errors.AutoReconnect as err:
            if wait is None:
                raise
            tell(f"{address.place} does not answer, and is asked again: {type(err).__name__}")
            time.sleep(wait)


_REFUSED = {13, 18, 8000}  # Unauthorized, AuthenticationFailed, and the latter as Atlas says it


def named(err: Exception, address: Address, password: str = "") -> PlatformError:
    """An error of the driver as one of ours: which server, what to do; without the password."""
    errors = driver("pymongo.errors")
    said = str(err)[:300]
    for secret in filter(None, (password, quote_plus(password))):
        said = said.replace(secret, "***")
    if getattr(err, "code", None) in _REFUSED or "uthenticat" in said:
        fix = f"set {USERNAME} and {PASSWORD}, or give the user the right to do it in database {address.database}"
        return PlatformError(f"MongoDB refused this user: {address.place}", detail=said, fix=fix, code="no_access")
    if isinstance(err, errors.AutoReconnect):
        fix = "see whether it runs and can be reached from here, and correct the address"
        return PlatformError(f"MongoDB does not answer: {address.place}", detail=said, fix=fix, code="unreachable")
    if isinstance(err, (errors.InvalidURI, errors.ConfigurationError, errors.InvalidName)):
        return _bad("is refused by the driver", f"correct it: {_FORM}?option=value", said)
    fix = "correct what its message names: filter, fields and grows of the address"
    return PlatformError(f"MongoDB refused what was asked: {address.place}", detail=said, fix=fix, code="store_refused")


_NO_SNAPSHOT = {2, 9, 20, 40, 59, 72, 115, 123, 238, 239, 246, 263, 40415}
"""How servers that have no snapshot to read from say so, and those that have it no more (239, 246)."""


class Moment:
    """One moment that all reads are of, where the server offers it: a session with read concern ``snapshot``.

    The server chooses the moment at the first read; it is sent (``atClusterTime``) with those that follow, on other
    connections too.
    """

    def __init__(self, client: Any, wanted: bool = True) -> None:
        self._client, self._wanted, self._why = client, wanted, "it was not asked for"
        self.session: Any = None

    def begin(self) -> None:
        """Reads from now on are of a moment of their own, unless the server has refused that."""
        if not self._wanted:
            return
        self.end()
        try:
            self.session = self._client.start_session(snapshot=True)
        except driver("pymongo.errors").ConfigurationError as err:
            self._without(f"the server offers no snapshot: {err}")

    def end(self) -> None:
        """Forget the moment."""
        if self.session is not None:
            self.session.end_session()
            self.session = None

    def lost(self, err: Exception, begun: bool) -> bool:
        """Whether an error says that there is no such moment, or none any more; reads go on without one.

        begun: whether something was read of it.
        """
        code = getattr(err, "code", None)
        if self.session is None or code not in (None, *_NO_SNAPSHOT):
            return False
        self._without(f"the server {'has it no more' if begun else 'offers no snapshot'}: {str(err).partition(',')[0]}")
        return True

    def answered(self) -> None:
        """Look whether the server named its moment: one that knows no read concern reads without."""
        if self.session is not None and self._time is None:
            self._without("the server does not say of which moment it reads")

    def _without(self, why: str) -> None:
        self.end()
        self._wanted, self._why = False, why

    @property
    def _time(self) -> Any:
        return getattr(self.session, "_snapshot_time", None)  # pymongo has no public name for it

    @property
    def held(self) -> bool:
        """Whether all that was read since `begin` is of one moment."""
        return self._time is not None

    def report(self) -> dict[str, Any]:
        """``snapshot`` with ``at`` (RFC 3339, of the server's clock), or with ``why`` not."""
        if self.held:
            return {"snapshot": True, "at": f"{self._time.as_datetime():%Y-%m-%dT%H:%M:%SZ}"}
        return {"snapshot": False, "why": self._why}


def read_options() -> Any:
    """How documents are decoded: UUIDs as such, and moments that Python's range does not hold too."""
    codec, binary = driver("bson.codec_options"), driver("bson.binary")
    return codec.CodecOptions(
        uuid_representation=binary.UuidRepresentation.STANDARD,
        datetime_conversion=codec.DatetimeConversion.DATETIME_AUTO,
    )
