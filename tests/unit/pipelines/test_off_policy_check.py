"""The gate's check: a candidate whose lists are shown to earn less does not pass, and what cannot be judged is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.exploration import explored
from pipelines.checks.base import Candidate
from pipelines.checks.off_policy import CHECK
from pipelines.task import GateConfig
from tests.problem_bundles import lists

DAY = 86_400.0


def candidate(tmp_path: Path, liked: str, share: float = 0.8) -> Candidate:
    """A model that gives a, d, b to who is unknown; in the log people like one item, wherever it stands."""
    bundle = lists(tmp_path)
    fields = json.loads(bundle.document.model_dump_json(exclude={"gate", "files"}))
    folder, dataset, rng, rows = tmp_path / "candidate", tmp_path / "dataset", np.random.default_rng(1), []
    shutil.copytree(bundle.path / "model", folder / "model")
    (folder / "candidate.json").write_text(json.dumps(fields))
    dataset.mkdir()
    names = "abcdef"
    for number in range(900):
        items, chance = explored([[4, 5, 2]], 0, range(6), share, rng) if share else ([4, 5, 2], [1.0] * 3)
        for place, (item, one) in enumerate(zip(items, chance, strict=True), start=1):
            clicked = names[item] == liked and rng.random() < 0.8
            rows.append((f"l{number}", f"u{number}", names[item], place, clicked, one, DAY * 9, "test"))
    columns = ["list", "user", "item", "place", "clicked", "propensity", "time", "part"]
    pd.DataFrame(rows, columns=columns).to_parquet(dataset / "impressions.parquet")
    for name in ("train", "valid"):
        pd.DataFrame({"user": ["x"], "item": [""], "label": ["a"], "seconds": [DAY]}).to_parquet(
            dataset / f"{name}.parquet"
        )
    evaluation: dict[str, Any] = {"metrics": {}, "slices": {}}
    about: dict[str, Any] = {
        "evaluation": evaluation,
        "settings": GateConfig(),
        "endpoints": Endpoints(home=str(tmp_path)),
    }
    return Candidate(task="recommend", folder=folder, dataset=dataset, **about)


@pytest.mark.parametrize(("liked", "passed"), [("d", True), ("e", False)])
def test_a_candidate_is_judged_by_what_its_lists_would_have_earned(tmp_path: Path, liked: str, passed: bool) -> None:
    found = CHECK.find(candidate(tmp_path, liked))
    (check,) = found.checks
    assert (check.metric, check.passed) == ("off_policy_clicks", passed), found.notes
    assert check.value is not None
    assert (check.value > check.limit) == passed
    assert check.value == pytest.approx(0.8 if passed else 0.0, abs=0.2)
    assert "lists' worth" in found.notes[0]


def test_without_chance_without_lists_or_with_too_few_nothing_is_judged(tmp_path: Path) -> None:
    one = candidate(tmp_path, "d", share=0.0)
    found = CHECK.find(one)
    assert (list(found.checks), len(found.notes)) == ([], 1)
    assert "nothing in the logged lists was left to chance" in found.notes[0]
    table = pd.read_parquet(one.dataset / "impressions.parquet")
    table.assign(propensity=0.5).to_parquet(one.dataset / "impressions.parquet")
    assert "are needed" in CHECK.find(one).notes[0]
    (one.dataset / "impressions.parquet").unlink()
    assert CHECK.find(one) == CHECK.find(one).__class__()
