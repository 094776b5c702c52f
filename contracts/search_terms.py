"""Texts as the terms that a search compares: stems of English words, single Chinese characters and pairs of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from contracts.stems import stem
from contracts.texts import words

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
# What questions and sentences are made of, whatever they are about.
_ENGLISH = """
a about after all also an and any are as at be been before being but by can could did do does done for from get had has
have how i if in into is it its just long many may me might much must my no not of often on or our over shall she should
so some such than that the their them there these they this those to under up us was we were what when where which while
who whom whose why will with would you your please tell
"""
_EMPTY = frozenset(_ENGLISH.split())
_CHINESE = re.compile(
    "请问|什么时候|什么地方|为什么|是什么|有什么|什么|是多少|有多少|多少|多久|多大|怎么样|怎么|怎样|如何|哪里|哪儿|哪个|"
    "哪些|哪位|哪|谁|几|吗|呢|吧|的|了|是否|能否|是"
)


def terms(text: str) -> list[str]:
    """Of a text or a question, in their order, without words that say nothing of what it is about."""
    found: list[str] = []
    run: list[str] = []
    for word in words(_CHINESE.sub(" ", text)):
        if _HAN.match(word):
            run.append(word)
            continue
        found += _chinese(run)
        run = []
        if word not in _EMPTY:
            found.append(stem(word))
    return found + _chinese(run)


def _chinese(signs: Sequence[str]) -> list[str]:
    """Characters that stand together, and their pairs."""
    if not signs:
        return []
    return [*signs, *(first + second for first, second in pairwise(signs))]
