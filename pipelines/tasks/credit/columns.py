"""Columns of an application in the layouts that the task knows: its own, German credit, Taiwan's card defaults."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.bundle import Input
from pipelines.data.sensitive import Sensitive
from pipelines.task import Column

SENSITIVE = (Sensitive(name="sex"), Sensitive(name="age", edges=(25, 40, 60)), Sensitive(name="origin"))

_OWN: Mapping[str, tuple[str, ...]] = {
    "checking": ("none", "negative", "low", "high"),
    "savings": ("none", "low", "medium", "high"),
    "purpose": ("car", "furniture", "education", "business", "repairs", "other"),
    "housing": ("own", "rent", "free"),
}
_GERMAN: Mapping[str, tuple[str, ...]] = {
    "checking": ("no account", "<0 DM", "0 <= <200 DM", ">= 200 DM"),
    "history": (
        "no credits taken",
        "all credits at this bank paid back duly",
        "existing credits paid back duly till now",
        "delay in paying off",
        "critical account",
    ),
    "purpose": (
        "car (new)",
        "car (used)",
        "furniture/equipment",
        "radio/television",
        "domestic appliances",
        "repairs",
        "education",
        "retraining",
        "business",
        "others",
    ),
    "savings": ("no savings account", "<100 DM", "100 <= <500 DM", "500 <= < 1000 DM", ">= 1000 DM"),
    "employment": ("unemployed", "<1 years", "1<= < 4 years", "4<= <7 years", ">=7 years"),
    "other_debtors": ("none", "co-applicant", "guarantor"),
    "property": ("real estate", "savings agreement/life insurance", "car or other", "unknown / no property"),
    "other_installments": ("none", "bank", "store"),
    "housing": ("own", "rent", "for free"),
    "job": (
        "unemployed/ unskilled  - non-resident",
        "unskilled - resident",
        "skilled employee / official",
        "management/ highly qualified employee",
    ),
    "telephone": ("none", "yes"),
}
_MONTHS = tuple(range(1, 7))  # of a card, from the latest back

# Numbers of each layout, with the least value that is accepted; strings have their categories above.
_NUMBERS: Mapping[str, Mapping[str, float | None]] = {
    "own": {
        "income": 0.0,
        "amount": 0.0,
        "term_months": 1.0,
        "payment_share": 0.0,
        "debts": 0.0,
        "late_payments": 0.0,
        "credit_years": 0.0,
        "existing_credits": 0.0,
        "employment_years": 0.0,
    },
    "german": {
        "amount": 0.0,
        "term_months": 1.0,
        "installment_rate": 0.0,
        "residence_years": 0.0,
        "existing_credits": 0.0,
        "dependants": 0.0,
    },
    "card_defaults": {
        "amount": 0.0,
        **{f"pay_status_{month}": None for month in _MONTHS},
        **{f"bill_{month}": None for month in _MONTHS},
        **{f"paid_{month}": 0.0 for month in _MONTHS},
    },
}
_STRINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {"own": _OWN, "german": _GERMAN, "card_defaults": {}}

# With which the chance of a default never falls, or never rises; in every layout that has them.
RISING = ("term_months", "payment_share", "debts", "late_payments", "installment_rate")
FALLING = ("income", "credit_years", "employment_years")


def inputs_of(layout: str) -> list[Input]:
    """The inputs of a layout, numbers first."""
    numbers = [Input(name=name, dtype="float64", minimum=least) for name, least in _NUMBERS[layout].items()]
    strings = [
        Input(name=name, dtype="string", categories=list(categories)) for name, categories in _STRINGS[layout].items()
    ]
    return [*numbers, *strings]


def columns() -> tuple[Column, ...]:
    """Those of all layouts: what a layout lacks is missing in its rows."""
    numbers: dict[str, float | None] = {}
    strings: dict[str, dict[str, None]] = {}
    for layout in _NUMBERS:
        numbers |= _NUMBERS[layout]
        for name, categories in _STRINGS[layout].items():
            strings.setdefault(name, {}).update(dict.fromkeys(categories))
    return (
        Column(name="application_id", dtype="string", unique=True),
        *(
            Column(name=name, dtype="float64", nullable=name != "amount", minimum=least)
            for name, least in numbers.items()
        ),
        *(Column(name=name, dtype="string", nullable=True, categories=tuple(found)) for name, found in strings.items()),
        Column(name="sex", dtype="string", nullable=True),
        Column(name="age", dtype="float64", nullable=True, minimum=0),
        Column(name="origin", dtype="string", nullable=True),
        Column(name="outcome", dtype="string"),
    )


GERMAN_NAMES: Mapping[str, str] = {
    "application_id": "#row",
    "amount": "credit-amount",
    "term_months": "duration",
    "installment_rate": "installment-rate",
    "residence_years": "residence-since",
    "existing_credits": "existing-credits",
    "dependants": "numner-people-provide-maintenance-for",
    "checking": "checking-account",
    "history": "credit-history",
    "savings": "savings-account",
    "employment": "employment-since",
    "other_debtors": "other-debtors",
    "other_installments": "other-installment",
    "origin": "foreign-worker",
    "outcome": "class-label",
}
CARD_NAMES: Mapping[str, str] = {
    "application_id": "ID",
    "amount": "LIMIT_BAL",
    **{f"pay_status_{month}": f"PAY_{0 if month == 1 else month}" for month in _MONTHS},
    **{f"bill_{month}": f"BILL_AMT{month}" for month in _MONTHS},
    **{f"paid_{month}": f"PAY_AMT{month}" for month in _MONTHS},
    "sex": "SEX",
    "age": "AGE",
    "outcome": "default.payment.next.month",
}
