"""Check digits and inner structure of numbers that people are known by; each takes the number without separators."""

from __future__ import annotations

import ipaddress
from datetime import date

PROVINCES = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
_ID_WEIGHTS = [2 ** (17 - at) % 11 for at in range(17)]
_ID_DIGITS = "10X98765432"
CREDIT_SIGNS = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_WEIGHTS = [pow(3, at, 31) for at in range(17)]
_CREDIT_OFFICES = frozenset("123456789AGNY")

# ISO 13616 registry: lengths by country.
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FI FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU XK MN",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ DZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV", "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC",
        "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

# Issuer identification numbers (ISO/IEC 7812): first, last, lengths of the whole number.
_ISSUERS = (
    ("4", "4", (13, 16, 19)), ("51", "55", (16,)), ("2221", "2720", (16,)), ("34", "34", (15,)), ("37", "37", (15,)),
    ("6011", "6011", (16, 19)), ("644", "659", (16, 19)), ("300", "305", (14, 16)), ("36", "36", (14, 16)),
    ("38", "39", (14, 16)), ("3528", "3589", (16, 19)), ("1800", "1800", (15,)), ("2131", "2131", (15,)),
    ("62", "62", (16, 17, 18, 19)), ("81", "81", (16, 17, 18, 19)), ("2200", "2204", (16,)), ("9558", "9558", (19,)),
    ("500", "509", (12, 16, 19)), ("560", "589", (12, 16, 19)), ("603", "603", (16,)), ("639", "639", (16, 19)),
    ("6304", "6304", (12, 16, 19)), ("676", "676", (12, 16, 19)),
)  # fmt: skip


def luhn(digits: str) -> bool:
    """ISO/IEC 7812 check digit; one random number in ten has it."""
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def card(digits: str) -> bool:
    """Number of a bank card: issuer, length of that issuer, check digit."""
    return luhn(digits) and any(
        len(digits) in lengths and first <= digits[: len(first)] <= last for first, last, lengths in _ISSUERS
    )


def any_card(digits: str) -> bool:
    """As `card`, of an issuer that is not in the list; believed where words say that it is one."""
    return luhn(digits) and len(set(digits)) > 1


def birth(text: str) -> bool:
    """A day, ``YYYYMMDD``, on which somebody alive may have been born."""
    try:
        return date(1900, 1, 1) <= date(int(text[:4]), int(text[4:6]), int(text[6:])) <= date.today()
    except ValueError:
        return False


def chinese_id(text: str) -> bool:
    """GB 11643: province, day of birth and check sign together; one random number in 65,000 has them all."""
    if text[:2] not in PROVINCES or not birth(text[6:14]):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _ID_WEIGHTS, strict=True))
    return _ID_DIGITS[total % 11] == text[17].upper()


def chinese_id_sign(text: str) -> str:
    """The check sign for the first 17 digits."""
    return _ID_DIGITS[sum(int(digit) * weight for digit, weight in zip(text, _ID_WEIGHTS, strict=True)) % 11]


def old_chinese_id(digits: str) -> bool:
    """The 15 digits of before 1999: province and day of birth, without a check digit."""
    return digits[:2] in PROVINCES and birth(f"19{digits[6:12]}")


def credit_code(text: str) -> bool:
    """GB 32100: office, province and check sign of a unified social credit code."""
    text = text.upper()
    if text[0] not in _CREDIT_OFFICES or text[2:4] not in PROVINCES or any(sign not in CREDIT_SIGNS for sign in text):
        return False
    return text[17] == credit_code_sign(text[:17])


def credit_code_sign(text: str) -> str:
    """The check sign for the first 17 signs."""
    total = sum(CREDIT_SIGNS.index(sign) * weight for sign, weight in zip(text, _CREDIT_WEIGHTS, strict=True))
    return CREDIT_SIGNS[-total % 31]


def iban(text: str) -> bool:
    """ISO 13616: the country's length and the check digits (modulo 97)."""
    text = text.upper()
    if len(text) != _IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def ip_address(text: str) -> bool:
    """An address of IPv4 or IPv6 that is somebody's: not 0.0.0.0, ::, a mask or a loopback."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_unspecified or found.is_loopback or text.startswith("255."))


def social_security(digits: str) -> bool:
    """A number as the US Social Security Administration hands out; taxpayers' numbers, which begin with 9, too."""
    return digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000"
