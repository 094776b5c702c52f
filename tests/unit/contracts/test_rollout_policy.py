"""The rules of a rollout: what is refused, and that bundles carry them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from contracts.bundle import BundleDocument
from contracts.rollout_policy import RolloutPolicy


@pytest.mark.parametrize("weights", [(), (5, 50), (5, 5, 100), (50, 5, 100), (0, 100), (5, 100, 120)])
def test_weights_rise_from_above_nothing_to_everything(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="weights must rise"):
        RolloutPolicy(weights=weights)


def test_a_margin_below_what_is_tolerated_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"margin 0\.01 must be larger than tolerated 0\.02"):
        RolloutPolicy.model_validate({"errors": {"tolerated": 0.02, "margin": 0.01}})


def test_a_bundle_carries_them_and_one_of_before_gets_the_defaults(make_bundle: Any) -> None:
    rules = {"weights": [10, 100], "step_samples": 7}
    assert make_bundle(rollout=rules).document.rollout.weights == (10, 100)
    before = {key: value for key, value in make_bundle().document.model_dump().items() if key != "rollout"}
    assert BundleDocument.model_validate(before).rollout == RolloutPolicy()
