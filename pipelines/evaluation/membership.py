"""Whether a model tells who it has learned from: an attack on it, as evidence beside a bound that is proven.

The attack asks for the model's loss on a row, and says "member" where it is small (S. Yeom et al.: Privacy risk in
machine learning, 2018). It is the weakest that is worth anything: attacks that train models of their own find more (N.
Carlini et al.: Membership inference attacks from first principles, 2022), so what it does not find may still be there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.file_rows import row_count, some_rows
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.measures import Ranking, bootstrap
from pipelines.evaluation.scoring import columns_of, predict

if TYPE_CHECKING:
    import pandas as pd

    from contracts.bundle import BundleDocument
    from contracts.engine import Engine

ROWS = 2_000  # of the training, and of the test, that are asked about
FALSE = 0.01  # share of other rows that the attack may call members


def measure(
    engine: Engine,
    document: BundleDocument,
    dataset: Path,
    given: tuple[pd.DataFrame, Any, Any, Any],
    private: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any] | None:
    """What the attack finds of ``train.parquet`` of `dataset` beside the test rows; None where losses are not known.

    Args:
        given: the test rows, the answers to them, output and decision.  private: what the model promises.
    """
    frame, answers, output, _ = given
    evaluation, rng = get_evaluation(output.problem), np.random.default_rng(seed)
    others = evaluation.losses(frame, answers, output)
    if others is None:
        return None
    some = _some_rows(dataset / "train.parquet", rng)
    said = predict(engine, columns_of(some, document.signature.inputs), document)
    members = evaluation.losses(some, said, output)
    assert members is not None
    return {**attack(members, rng.permutation(others)[:ROWS], seed), "bound": bound(private) if private else None}


def _some_rows(file: Path, rng: np.random.Generator) -> pd.DataFrame:
    """At most `ROWS` rows, each as probable, in their order; the table, which may hold files, is read in parts."""
    import pyarrow as pa

    chosen = np.sort(rng.permutation(row_count(file))[:ROWS])
    some: pd.DataFrame = pa.concat_tables(some_rows(file, chosen)).to_pandas(ignore_metadata=True)
    return some


def attack(members: NDArray[np.float64], others: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """How well small losses tell members: area under the ROC curve with its interval, and the share of members that
    are found where `FALSE` of the others are called members too."""
    loss = np.concatenate([members, others])
    member = np.arange(len(loss)) < len(members)

    ranking = Ranking(member, -loss)

    def area(weight: NDArray[np.float64] | None) -> dict[str, float]:
        return {"auc": ranking.areas(weight)[1]}

    threshold = np.quantile(others, FALSE)
    return {
        "attack": "loss threshold",
        "rows": [len(members), len(others)],
        "auc": area(None)["auc"],
        "interval": bootstrap(area, len(loss), seed).get("auc"),
        "found": float(np.mean(members < threshold)),
        "false": FALSE,
    }


def bound(private: Mapping[str, Any]) -> float:
    """The largest share of members that any attack can find at `FALSE` (P. Kairouz et al.: Composition, 2015)."""
    factor, delta = math.exp(float(private["epsilon"])), float(private["delta"])
    return min(1.0, factor * FALSE + delta, 1 - (1 - delta - FALSE) / factor)
