"""Kinds of English texts: telephone numbers of the world, US social security numbers, passports, addresses."""

from __future__ import annotations

import re

from contracts.pii import checks
from contracts.pii.kind import Draw, Kind, never, words

_PHONE = words(
    "phones?", "telephone", "tel", "mobile", "cell", "call(?:ed|ing)?", "answering", "fax", "office", "desk", "home",
    "registered", "contact", "whatsapp", "sms", "text(?:ed)?", "reach", "dial", "number",
    "电话", "手机", "传真", "联系",
)  # fmt: skip
_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Highway|Hwy|Parkway|Pkwy"
    "|Terrace|Way|Circle|Cir|Trail|Crescent|Close|Row|Alley"
)
_US = re.compile(r"(?:\+?1[ .-]?)?\(?[2-9]\d\d\)?[ .-]?[2-9]\d\d[ .-]\d{4}(?: ?(?:x|ext\.?) ?\d{1,6})?")
_FOREIGN = re.compile(r"\+|00[1-9]")


def _telephone(value: str) -> bool:
    digits = re.split(r"[Xx]|EXT", value)[0]
    return 7 <= len(digits) <= 15 and len(set(digits)) > 1


def _phone_alone(text: str, value: str) -> bool:
    """With the code of a country or in the American form; others are phones where words say so."""
    return _FOREIGN.match(text) is not None or _US.fullmatch(text) is not None


def _phone(draw: Draw, value: str) -> str:
    return draw.like(value, keep=2)


def _known_phone(text: str) -> str:
    return re.sub(r"\D", "", re.split(r"[x]|ext", text.casefold())[0]).removeprefix("00")


def _security(draw: Draw, value: str) -> str:
    return f"9{draw.like('00')}{draw.below(9) + 1}{draw.like('0')}{draw.below(9) + 1}{draw.like('000')}"


def _address(draw: Draw, value: str) -> str:
    return f"{draw.below(899) + 100} Example Street"


PHONE = Kind(
    name="phone",
    pattern=re.compile(
        r"(?=[\d+(])(?<![0-9A-Za-z+])(?<!\d[ .,-])(?!\d{4}[.-]\d{1,2}[.-]\d{1,2}(?!\d))(?:\+|00)?"
        r"(?:\d{1,4}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?"
        r"\d{2,4}(?:[ .-]\d{2,8}){1,4}(?: ?(?:x|ext\.?) ?\d{1,6})?(?![0-9A-Za-z]|[ .,-]\d)"
    ),
    valid=_telephone,
    context=_PHONE,
    alone=_phone_alone,
    known=_known_phone,
    rank=3,
    surrogate=_phone,
    split=True,
)
PLAIN_PHONE = Kind(
    name="phone",
    pattern=re.compile(
        r"(?<![0-9A-Za-z+.])(?:(?:\+|00)[1-9]\d{7,14}"
        r"|\(\d{2,4}\) ?\d{3,4}[ .-]?\d{3,4}(?: ?(?:x|ext\.?) ?\d{1,6})?|[2-9]\d{9})"
        r"(?![0-9A-Za-z]|\.\d)"
    ),
    valid=_telephone,
    context=_PHONE,
    alone=lambda text, value: text[0] in "+(0",
    known=_known_phone,
    rank=3,
    surrogate=_phone,
)
SOCIAL_SECURITY = Kind(
    name="us_ssn",
    pattern=re.compile(r"(?<![0-9A-Za-z-])\d{3}([ -]?)\d{2}\1\d{4}(?![0-9A-Za-z]|-\d)"),
    valid=checks.social_security,
    context=words("ssn", "social security", "itin", "tax(?:payer)?"),
    alone=lambda text, value: text.count("-") == 2,
    rank=5,
    surrogate=_security,
)
PASSPORT = Kind(
    name="passport",
    pattern=re.compile(r"(?<![0-9A-Za-z])(?:[A-Za-z]{1,2}\d{6,8}|[A-Za-z]\d{2}[A-Za-z]{2}\d{4}|\d{9})(?![0-9A-Za-z])"),
    context=words("passports?", "travel document"),
    alone=never,
    rank=4,
)
STREET = Kind(
    name="address",
    pattern=re.compile(
        r"(?=[\dP])(?:(?<![0-9A-Za-z])(?<!No\. )\d{1,5}[A-Za-z]? (?:[A-Z][A-Za-z'.-]{1,20} ){1,4}"
        rf"(?:{_STREETS})(?![A-Za-z])\.?(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|#)\.? ?\w{{1,6}})?"
        r"|(?<![A-Za-z])P\.? ?O\.? Box \d{1,6}(?!\d))"
    ),
    known=lambda text: " ".join(text.casefold().split()),
    rank=4,
    surrogate=_address,
)

KINDS = (PHONE, PLAIN_PHONE, SOCIAL_SECURITY, PASSPORT, STREET)
