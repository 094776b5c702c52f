"""What is done about personal data: an operator for each finding, the same for the same value everywhere."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contracts.errors import PlatformError
from contracts.pii.finders import Finder
from contracts.pii.finding import NAMES, Span, find, find_all, plain
from contracts.pii.kind import Draw, compact

KEY = "FAIRLEAD_PII_KEY"
WHOLE = "value"  # what a value is called that is treated as a whole
_LEAST = 32  # bytes of a key
_SEALED = re.compile(r"\[(?P<kind>[a-z_]{2,30})!(?P<data>[0-9A-Za-z_-]{20,})\]")
_SIGN = re.compile(r"[^\W_]")


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of the operators, all made of one; `name` tells two keys apart and nothing else of them."""

    hashing: bytes = field(repr=False)
    sealing: bytes = field(repr=False)
    drawing: bytes = field(repr=False)
    name: str


def keys_of(secret: str) -> Keys:
    """Keys of a secret of at least 32 bytes, in hexadecimal or as any text.

    Raises:
        PlatformError: ``code="no_pii_key"``: it is too short.
    """
    given = secret.strip()
    try:
        raw = bytes.fromhex(given)
    except ValueError:
        raw = given.encode()
    if len(raw) < _LEAST:
        raise _no_key(f"{KEY} has {len(raw)} bytes" if raw else f"{KEY} is not set")

    def part(use: str, size: int = 32) -> bytes:
        made = [hmac.digest(raw, f"fairlead pii {use} {block}".encode(), hashlib.sha256) for block in range(2)]
        return b"".join(made)[:size]

    return Keys(
        hashing=part("hash"), sealing=part("encrypt", 64), drawing=part("surrogate"), name=part("name", 4).hex()
    )


def keys_here() -> Keys:
    """Keys of this process's environment.

    Raises:
        PlatformError: ``code="no_pii_key"``: there is none, or it is too short.
    """
    return keys_of(os.environ.get(KEY, ""))


def _no_key(detail: str) -> PlatformError:
    return PlatformError(
        "hash, encrypt and surrogate need a key",
        detail=f"{detail}; a key has at least {_LEAST} bytes",
        fix=f"make one and keep it where secrets are kept: export {KEY}=$(openssl rand -hex 32)",
        code="no_pii_key",
    )


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What is replaced: `text` as written, `value` as it is known; `span` is None of a value treated as a whole."""

    name: str
    value: str
    text: str
    span: Span | None = None

    @property
    def said(self) -> str:
        """Kind and value, for what must differ where one of them does."""
        return f"{self.name}\0{self.value}"


def _mask(piece: _Piece, keys: Keys | None) -> str:
    return _SIGN.sub("*", piece.text)


def _label(piece: _Piece, keys: Keys | None) -> str:
    return f"[{piece.name.upper()}]"


def _drop(piece: _Piece, keys: Keys | None) -> str:
    return ""


def _hash(piece: _Piece, keys: Keys | None) -> str:
    assert keys is not None
    return f"[{piece.name}#{hmac.digest(keys.hashing, piece.said.encode(), hashlib.sha256).hex()[:16]}]"


def _encrypt(piece: _Piece, keys: Keys | None) -> str:
    """AES-SIV (RFC 5297): the same text gives the same token, so that versions of data stay the same."""
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    assert keys is not None
    sealed = AESSIV(keys.sealing).encrypt(piece.text.encode(), [piece.name.encode()])
    return f"[{piece.name}!{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}]"


def _surrogate(piece: _Piece, keys: Keys | None) -> str:
    assert keys is not None
    draw = Draw(keys.drawing, piece.said)
    if piece.span is None:
        return draw.like(piece.text)
    for _ in range(20):
        made = piece.span.kind.surrogate(draw, piece.value)
        if made != piece.value:
            break
    text = plain(piece.text).text
    return _laid(text, made) if len(compact(made)) == len(compact(text)) else made


def _laid(text: str, made: str) -> str:
    """The signs of `made` with the separators of `text`."""
    signs = iter(compact(made))
    return "".join(next(signs) if compact(sign) else sign for sign in text)


OPERATORS: Mapping[str, Callable[[_Piece, Keys | None], str]] = {
    "mask": _mask,
    "label": _label,
    "hash": _hash,
    "encrypt": _encrypt,
    "surrogate": _surrogate,
    "drop": _drop,
}
KEYED = ("hash", "encrypt", "surrogate")


@dataclass(frozen=True, kw_only=True)
class Redacted:
    """A text without personal data, and what was in it."""

    text: str
    found: list[Span]


class Redactor:
    """Applies one operator to personal data of some kinds.

    Args:
        operator: one of `OPERATORS`.
        kinds: those that are looked for.
        finder: of names and what else has no form, see `contracts.pii.finders`.
        keys: by default those of the environment, where the operator needs them.

    Raises:
        PlatformError: ``code="unknown_pii"`` or ``"no_pii_key"``.
    """

    def __init__(
        self, operator: str, *, kinds: Iterable[str] = NAMES, keys: Keys | None = None, finder: Finder | None = None
    ) -> None:
        if operator not in OPERATORS:
            raise PlatformError(
                f"unknown operator {operator!r}",
                detail=f"known: {', '.join(OPERATORS)}",
                fix="pick one of these",
                code="unknown_pii",
            )
        self.kinds = tuple(kinds)
        find("", kinds=self.kinds)
        self.finder = finder
        self._apply = OPERATORS[operator]
        self._keys = keys or (keys_here() if operator in KEYED else None)

    def redact(self, text: str, *, hint: str = "") -> Redacted:
        """`text` with every finding replaced; `hint` are words that tell what it is, such as its column's name."""
        return self.redact_all([text], hint=hint)[0]

    def redact_all(self, texts: Sequence[str], *, hint: str = "") -> list[Redacted]:
        """`redact` of each, with one question to the finder."""
        found = find_all(texts, hint=hint, kinds=self.kinds, finder=self.finder)
        return [Redacted(text=self.replace(text, some), found=some) for text, some in zip(texts, found, strict=True)]

    def replace(self, text: str, found: Iterable[Span]) -> str:
        """`text` with these findings replaced."""
        parts, at = [], 0
        for span in found:
            parts += [text[at : span.start], self._one(span, text[span.start : span.end])]
            at = span.end
        return "".join([*parts, text[at:]])

    def _one(self, span: Span, text: str) -> str:
        piece = _Piece(name=span.kind.name, value=span.value, text=text, span=span)
        return self._apply(piece, self._keys)

    def whole(self, text: str) -> str:
        """`text` treated as one value, whatever it is; an empty one stays empty."""
        value = text.strip()
        return self._apply(_Piece(name=WHOLE, value=value, text=text), self._keys) if value else text


def counted(found: Iterable[Span]) -> dict[str, int]:
    """Findings by kind, the most frequent first."""
    return dict(Counter(span.kind.name for span in found).most_common())


def reveal(text: str, keys: Keys | None = None) -> str:
    """`text` with what `encrypt` wrote decrypted.

    Raises:
        PlatformError: ``code="wrong_pii_key"``: a token was written with another key, or was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    cipher = AESSIV((keys or keys_here()).sealing)

    def opened(match: re.Match[str]) -> str:
        data = match["data"] + "=" * (-len(match["data"]) % 4)
        try:
            return cipher.decrypt(base64.urlsafe_b64decode(data), [match["kind"].encode()]).decode()
        except (InvalidTag, ValueError) as err:
            raise PlatformError(
                f"a token of kind {match['kind']!r} cannot be decrypted",
                detail=f"at sign {match.start()}: it was written with another key, or was changed",
                fix=f"set {KEY} to the key of the data",
                code="wrong_pii_key",
            ) from err

    return _SEALED.sub(opened, text)
