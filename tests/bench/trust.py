"""Credit scoring, fairness, privacy and personal data on real data: ``make bench-trust [ARGS=german]``.

Needs FAIRLEAD_TEST_DATA, a folder with ``tabular/`` (German credit, Adult), ``pii-en/`` and ``ner-zh/``. Splits and
seeds are fixed; what is chosen is chosen on rows for training, Adult's test file is asked once for each row of the
table. Sex, race and age in German credit, sex and race in Adult, are no inputs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from contracts import fairness
from contracts.engines import load_engine
from contracts.tabular_engine import matrix
from pipelines.data.sensitive import Sensitive, write_groups
from pipelines.evaluation import get_evaluation, group_plots, membership
from pipelines.evaluation.measures import auc
from pipelines.evaluation.scoring import columns_of, predict, provisional
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.recipes.tabular.task import TabularTask
from pipelines.task import Column
from pipelines.tasks.credit.columns import GERMAN_NAMES, inputs_of
from pipelines.tasks.credit.config import RECIPES
from pipelines.training.boosting import Columns, LightGBMConfig, Rows, fit_boosted
from pipelines.training.mitigation import Mitigation
from pipelines.training.privacy import PrivacyConfig
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, log_odds
from pipelines.training.tabular import CostConfig, LogisticConfig
from tests.bench.report import FOLDER, Row, write
from tests.bench.trust_encrypted import encrypted
from tests.bench.trust_federated import federated
from tests.bench.trust_personal import personal
from tests.bench.trust_privacy import likelihood_ratio, private
from tests.bench.trust_taggers import taggers

FOLDS, REPEATS, SEED = 5, 5, 7
BOOSTED = LightGBMConfig(rounds=2000, learning_rate=0.02, leaves=31, min_leaf=20, feature_fraction=0.5, refit=True)
CARD = ScorecardConfig(fit="steps", bins=60, min_share=0.0005, c=0.03, double=40.0)
# What is asked of German credit's other rows in each fold: whichever answers them best answers the fold.
CARDS = (
    ScorecardConfig(rising=("term_months", "installment_rate")),
    *(
        ScorecardConfig(fit="steps", bins=bins, min_share=0.02, c=c, rising=("term_months", "installment_rate"))
        for bins in (8, 12, 20)
        for c in (0.003, 0.005, 0.01)
    ),
)
NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
SHARES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9)
STRENGTHS = (0.0, 0.1, 0.15, 0.2, 0.22, 0.24, 0.26, 0.3)


def data(name: str) -> Path:
    file = Path(os.environ.get("FAIRLEAD_TEST_DATA", "")) / "tabular" / name
    if not os.environ.get("FAIRLEAD_TEST_DATA") or not file.exists():
        sys.exit(f"bench-trust needs real data: set FAIRLEAD_TEST_DATA to the folder that holds tabular/{name}")
    return file


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


def german(home: Path) -> Iterator[Row]:
    """Area under the ROC curve, mean of five folds by five seeds; all three models learn from the same rows."""
    import pandas as pd
    from sklearn.model_selection import StratifiedKFold

    frame = pd.read_csv(data("german_credit.csv")).rename(columns={old: new for new, old in GERMAN_NAMES.items()})
    for name in frame.select_dtypes(exclude="number"):
        frame[name] = frame[name].str.strip()
    inputs = inputs_of("german")
    x, y = matrix(inputs, columns_of(frame, inputs)), (frame["outcome"] == 0).to_numpy(dtype=np.int64)
    found: dict[str, list[float]] = {"scorecard": [], "scorecard, settings chosen in the fold": [], "lightgbm": []}

    def card(config: ScorecardConfig, fit: Any, held: Any) -> float:
        made = fit_scorecard(inputs, x[fit], y[fit], np.ones(len(fit)), config, SEED)
        return auc(y[held] == 1, log_odds(made, inputs, x[held]))

    for seed in range(REPEATS):
        for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
            config = RECIPES["german"].model  # type: ignore[attr-defined]
            found["scorecard"].append(card(config, fit, held))
            inner = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x[fit], y[fit]))
            best = max(CARDS, key=lambda one: np.mean([card(one, fit[a], fit[b]) for a, b in inner]))
            found["scorecard, settings chosen in the fold"].append(card(best, fit, held))
            found["lightgbm"].append(auc(y[held] == 1, trees(inputs, x, y, fit, held, home / f"{seed}-{held[0]}")))
    case, known = "German credit, 5-fold ROC AUC", {"scorecard": ">= 0.80"}
    for name, values in found.items():
        yield Row(
            case=case, contestant=f"fairlead {name}", value=float(np.mean(values)), unit="AUC", goal=known.get(name, "")
        )
    behind = float(np.mean(found["lightgbm"]) - np.mean(found["scorecard"]))
    yield Row(
        case="German credit, LightGBM less scorecard", contestant="fairlead", value=behind, unit="AUC", goal="<= 0.01"
    )


def trees(inputs: Any, x: Any, y: Any, fit: Any, held: Any, home: Path) -> Any:
    """Scores of the held rows; a fifth of the others says when to stop, and is learned from at last."""
    config = LightGBMConfig(leaves=8, min_leaf=20, learning_rate=0.03, refit=True)
    late = np.zeros(len(fit), dtype=bool)
    late[::FOLDS] = True
    strings = [item.name for item in inputs if item.dtype == "string"]
    columns = Columns(names=[item.name for item in inputs], categorical=strings, classes=2)
    early, last = (Rows(x=x[rows], y=y[rows], weight=np.ones(len(rows))) for rows in (fit[~late], fit[late]))
    return fit_boosted(early, last, columns, config, SEED, home, silent).booster.predict(x[held], raw_score=True)


class Adult(TabularTask):
    """Who earns more than 50,000? Sex and race are kept apart."""

    name, title, id, label = "adult", "Who earns more?", "id", "income"
    classes = ("<=50K", ">50K")
    favourable = ">50K"
    sensitive = (Sensitive(name="sex"), Sensitive(name="race"))

    def __init__(self, frame: Any) -> None:
        strings = [str(name) for name in frame if name not in (*NUMBERS, "id", "income", "sex", "race")]
        self.columns = (
            Column(name="id", dtype="string"),
            *(Column(name=name, dtype="float64") for name in NUMBERS),
            *(Column(name=name, dtype="string", categories=tuple(sorted(frame[name].unique()))) for name in strings),
            Column(name="income", dtype="string"),
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model on Adult's test file."""

    accuracy: float
    area: float
    ratio: float
    tradeoff: Any
    privacy: Any
    attack: Any
    seconds: float


def adult_frame(name: str) -> Any:
    import pandas as pd

    frame = pd.read_csv(data(name), skipinitialspace=True).rename(columns={"Y": "income"})
    frame["income"] = frame["income"].str.rstrip(".")
    frame["id"] = [f"{name}-{at}" for at in range(len(frame))]
    return frame.drop(columns=["fnlwgt", "education"])  # a weight of the census; and education-num in words


class AdultData:
    """The files of a data set, with a fifth of the training file for validation, as a run would write them."""

    def __init__(self, home: Path) -> None:
        whole, self.test = adult_frame("adult.data"), adult_frame("adult.test")
        self.task: Any = Adult(whole)
        self.folder = home / "dataset"
        self.folder.mkdir(parents=True)
        held = np.random.default_rng(SEED).random(len(whole)) < 0.2
        parts = {"train": whole[~held], "valid": whole[held], "test": self.test}
        for name, frame in parts.items():
            frame.assign(label=frame["income"]).to_parquet(self.folder / f"{name}.parquet")
        import pandas as pd

        write_groups(self.task, parts, pd.concat([whole, self.test]), self.folder)

    def measured(
        self, home: Path, model: Any, mitigation: Mitigation, privacy: PrivacyConfig | None = None
    ) -> Measured:
        """Train a recipe and ask its engine about the test file."""
        cost = CostConfig(false_negative=1.0, rule="observed" if privacy is None else "expected")
        asked = privacy or PrivacyConfig()
        recipe = TabularRecipe(recipe="adult", model=model, mitigation=mitigation, cost=cost, privacy=asked)
        out = home / "model"
        out.mkdir(parents=True)
        task: Any = self.task
        began = time.process_time()
        trained = recipe.train(task, self.folder, out, home / "checkpoints", silent)
        seconds = time.process_time() - began
        fields = {
            "name": "adult",
            "task": "adult",
            "recipe": "adult",
            "modality": "tabular",
            "engine": trained["engine"],
            "signature": {
                "inputs": [item.model_dump() for item in self.task.inputs(recipe)],
                "output": trained["output"],
            },
            "decision": trained["decision"],
            "lineage": {"code_version": "", "data_version": "", "source": "", "seed": SEED},
        }
        bundle = provisional(home, fields)
        document, frame = bundle.document, self.test.assign(label=self.test["income"])
        engine = load_engine(bundle)
        answers = predict(engine, columns_of(frame, document.signature.inputs), document)
        evaluation = get_evaluation("classification")
        given = (frame, answers, document.signature.output, document.decision)
        metrics = evaluation.measure_for(*given)(None)
        outcome = evaluation.outcome(*given, ">50K")
        assert outcome is not None
        groups = fairness.measure(frame[["sex"]], outcome, 100)["columns"]["sex"]
        return Measured(
            accuracy=100 * metrics["accuracy"],
            area=metrics["roc_auc"],
            ratio=groups["selection_ratio"],
            tradeoff=trained.get("tradeoff"),
            seconds=seconds,
            privacy=trained.get("privacy"),
            attack=membership.measure(engine, document, self.folder, given, trained.get("privacy"), SEED),
        )


def adult(home: Path) -> Iterator[Row]:
    """Quality of three models, without sex and race."""
    files, case = AdultData(home), "Adult, test file, ROC AUC"
    models = {"lightgbm": BOOSTED, "scorecard": CARD, "logistic": LogisticConfig()}
    areas = {}
    for name, model in models.items():
        found = files.measured(home / name, model, Mitigation())
        areas[name] = found.area
        goal = {"lightgbm": ">= 0.928"}.get(name, "")
        yield Row(case=case, contestant=f"fairlead {name}", value=found.area, unit="AUC", goal=goal)
        yield Row(case="Adult, test file", contestant=f"fairlead {name}", value=found.accuracy, unit="% accuracy")
    behind = areas["lightgbm"] - areas["scorecard"]
    yield Row(case="Adult, LightGBM less scorecard", contestant="fairlead", value=behind, unit="AUC", goal="<= 0.01")


def fair(home: Path) -> Iterator[Row]:
    """The ratio of selection of women to men, and its price; the validation rows choose the strength, by 0.82."""
    files, model = AdultData(home), replace(BOOSTED, learning_rate=0.05, rounds=800)
    wanted = {
        "no mitigation": Mitigation(),
        "reweighing": Mitigation(method="reweighing", column="sex", strength=1.0, strengths=(0.0, 1.0, 2.0)),
        "parity": Mitigation(method="parity", column="sex", target=0.82, strengths=STRENGTHS),
        "exponentiated gradient": Mitigation(
            method="exponentiated_gradient", column="sex", target=0.82, strengths=SHARES, strength=0.0
        ),
    }
    for name, mitigation in wanted.items():
        found = files.measured(home / name.replace(" ", "-"), model, mitigation)
        judged = name == "parity"
        goals = (">= 0.8", ">= 85.5") if judged else ("", "")
        yield Row(
            case="Adult, selection women / men",
            contestant=f"fairlead {name}",
            value=found.ratio,
            unit="ratio",
            goal=goals[0],
        )
        yield Row(
            case="Adult, accuracy with it",
            contestant=f"fairlead {name}",
            value=found.accuracy,
            unit="% accuracy",
            goal=goals[1],
        )
        if found.tradeoff:
            FOLDER.mkdir(parents=True, exist_ok=True)
            group_plots.tradeoff(FOLDER / f"trust_{name}.png", found.tradeoff, 0.8)


def reasons(home: Path) -> Iterator[Row]:
    """Four reasons of one applicant, by the scorecard that ships."""
    import pandas as pd

    from pipelines.tasks.credit import TASK
    from pipelines.training.scorecard import save_scorecard

    frame = next(TASK.default_source(RECIPES["scorecard"])).to_pandas()
    inputs = inputs_of("own")
    columns = columns_of(frame, inputs)
    y = (frame["outcome"] == "default").to_numpy(dtype=np.int64)
    config = RECIPES["scorecard"].model  # type: ignore[attr-defined]
    (home / "model").mkdir(parents=True)
    save_scorecard(
        fit_scorecard(inputs, matrix(inputs, columns), y, np.ones(len(y)), config, SEED),
        {"kind": "none"},
        home / "model",
    )
    fields = {
        "name": "credit",
        "task": "credit",
        "recipe": "scorecard",
        "modality": "tabular",
        "engine": "scorecard",
        "signature": {"inputs": [item.model_dump() for item in inputs], "classes": ["repaid", "default"]},
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": SEED},
    }
    engine, times = load_engine(provisional(home, fields)), []
    for row in range(500):
        one = {name: values[row : row + 1] for name, values in columns.items()}
        start = time.perf_counter()
        engine.explain(one, 4)
        times.append(1000 * (time.perf_counter() - start))
    yield Row(
        case="4 reasons, one row, p50",
        contestant="fairlead scorecard",
        value=float(pd.Series(times).median()),
        unit="ms",
        goal="<= 1",
    )


def main(names: list[str]) -> int:
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {
        "german": german,
        "adult": adult,
        "fair": fair,
        "reasons": reasons,
        "privacy": lambda home: private(home, AdultData(home)),
        "attack": lambda home: likelihood_ratio(home, AdultData(home)),
        "federated": lambda home: federated(home, AdultData(home)),
        "encrypted": encrypted,
        "personal": lambda home: chain(personal(home), taggers(home)),
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in names or parts for row in parts[name](Path(folder) / name)]
    return write("trust", "make bench-trust", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
