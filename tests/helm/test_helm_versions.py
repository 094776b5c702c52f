"""The charts use what Helm 3.14 has, the oldest that is promised; a function that is new here is looked up first."""

from __future__ import annotations

import re

import yaml

from tests.helm.program import CHARTS

_KEYWORDS = "and define else end false if include not or range template true with"
# Of Go's templates, sprig 3.2.3 and Helm itself, as they are in Helm 3.14.
_FUNCTIONS = """
add append b64dec b64enc base ceil compact concat contains deepCopy default dict div empty eq fail first float64 floor
fromJson fromJsonArray fromYaml fromYamlArray ge get gt has hasKey hasPrefix hasSuffix index int int64 join keys
kindIs last le len list lookup lower lt merge mergeOverwrite min mul mulf ne nindent omit pick prepend printf quote
randAlphaNum regexFind regexMatch regexReplaceAll replace rest set sha1sum sha256sum sortAlpha splitList sub subf
ternary toJson toPrettyJson toString toYaml tpl trim trimPrefix trimSuffix trunc uniq upper urlParse
without
"""
_TEXT = r'"(?:\\.|[^"\\])*"|`[^`]*`'
_ACTION = rf'\{{\{{-? ((?:{_TEXT}|[^"`])*?)-?\}}\}}'
_OF_PROMETHEUS = "humanizePercentage"  # in texts of alerts


def test_templates_call_no_function_that_helm_3_14_lacks() -> None:
    used: dict[str, str] = {}
    for file in sorted(CHARTS.glob("*/templates/**/*")):
        if not file.is_file():
            continue
        for action in re.findall(_ACTION, file.read_text(encoding="utf-8")):
            words = "" if action.startswith("/*") else re.sub(_TEXT, '""', action)
            used |= dict.fromkeys(re.findall(r"(?:^|[\s(|])([a-z][A-Za-z0-9]*)\b", words), file.name)
    functions = set(_FUNCTIONS.split())
    known = functions | set(_KEYWORDS.split()) | {_OF_PROMETHEUS}
    assert {name: file for name, file in used.items() if name not in known} == {}
    assert len(set(used) & functions) > 50, "the templates were not read"


def test_every_chart_is_one_of_helm_3_and_names_the_oldest_kubernetes() -> None:
    for file in CHARTS.glob("*/Chart.yaml"):
        chart = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert chart["apiVersion"] == "v2", file
        assert chart.get("type") == "library" or chart["kubeVersion"] == ">=1.29.0-0", file
