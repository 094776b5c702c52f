"""Kinds that have no form and are found by a model of the words around them, and what models call them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from contracts.pii import english, people
from contracts.pii.kind import Kind

_NOWHERE = re.compile(r"(?!)")


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


NAME = Kind(name="name", pattern=_NOWHERE, known=_words, rank=2, stops=False, surrogate=people.WHOLE.surrogate)
ADDRESS = Kind(name="address", pattern=_NOWHERE, known=_words, rank=4, stops=False, surrogate=english.STREET.surrogate)
OTHERS = tuple(
    Kind(name=name, pattern=_NOWHERE, known=_words, rank=1, stops=False)
    for name in ("age", "date", "domain", "group", "organisation", "place", "title", "zip_code")
)
KINDS = (NAME, ADDRESS, *OTHERS)

# What taggers call it: MSRA and CoNLL, OntoNotes, Presidio; our own names beside them.
_TYPES = {
    "name": ("PER", "PERSON"),
    "place": ("LOC", "GPE", "LOCATION", "FAC"),
    "organisation": ("ORG", "ORGANIZATION"),
    "address": ("STREET_ADDRESS",),
    "age": (),
    "title": (),
    "date": ("DATE_TIME",),
    "domain": ("DOMAIN_NAME", "URL"),
    "group": ("NRP", "NORP"),
    "zip_code": (),
    "phone": ("PHONE_NUMBER",),
    "email": ("EMAIL_ADDRESS",),
    "iban": ("IBAN_CODE",),
    "card": ("CREDIT_CARD",),
    "ip": ("IP_ADDRESS",),
    "us_ssn": (),
    "passport": ("US_PASSPORT",),
}
TYPES: Mapping[str, str] = {
    called: name for name, others in _TYPES.items() for called in (name.upper(), *others)
}  # type of a model -> kind


def kind_named(name: str) -> Kind:
    """The kind `name` as a model finds it; what has a form and lacks it counts less than what has it."""
    return next((kind for kind in KINDS if kind.name == name), Kind(name=name, pattern=_NOWHERE, rank=0, stops=False))
