"""Rows as a service sees them when it has no features for them: of entities it does not know, or too old ones.

What is served then follows from the plan, so it can be made of any row: the features of some views are missing, and
the on-demand features are derived from what is left. Training learns from such rows and evaluation measures them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.data.file_rows import FileRows

SLICE = "features"  # the slices of evaluation are features:unknown entity, features:stale and so on
CASE, RANK = "hidden_case", "hidden_rank"  # columns of the files, beside those of the data set
_MOST = 50_000  # rows of the test that are measured in a case
_KEYS = ("features hidden?", "features: which?")  # of hashes, which no split of the rows depends on


@dataclass(frozen=True, kw_only=True)
class Case:
    """Why features are missing, in words too, the views whose features they are, and the flag of an answer."""

    name: str
    when: str
    flag: str
    views: tuple[str, ...]

    @property
    def said(self) -> str:
        """What is served then, for people."""
        flags = " ".join(f"{self.flag}:{view}" for view in self.views)
        return (
            f"{self.when}: the features of {', '.join(self.views)} are missing (an input that has a default takes it), "
            f"what is derived from them is derived without, and the answer is flagged {flags}."
        )


def cases(plan: Mapping[str, Any]) -> list[Case]:
    """What can happen to the features of a plan: all entities or one of several are unknown; all features are stale."""
    keys = {view["name"]: [key["name"] for key in view["join_keys"]] for view in plan["views"]}
    entities = list(dict.fromkeys(name for names in keys.values() for name in names))
    limited = tuple(view["name"] for view in plan["views"] if view["ttl_seconds"])
    views = tuple(name for name in keys if keys[name])
    found = [Case(name="unknown entity", when=f"No {' or '.join(entities)} is known", flag="not_found", views=views)]
    if len(entities) > 1:
        for entity in entities:
            views = tuple(name for name, names in keys.items() if entity in names)
            found.append(Case(name=f"unknown {entity}", when=f"{entity} is not known", flag="not_found", views=views))
    old = "All features are older than their time to live"
    found.append(Case(name="stale", when=old, flag="outside_max_age", views=limited))
    return [case for case in found if case.views]


def write_hidden(
    frames: Mapping[str, pd.DataFrame],
    joined: pd.DataFrame,
    key: str,
    plan: Mapping[str, Any],
    folder: Path,
    files: FileRows,
) -> None:
    """Write ``{train,test}_hidden-<n>.parquet``: rows of the splits as they are served with hidden features.

    A test row is in the file of each case (a sample of them, where there are many), a training row in that of one.
    Both are chosen by the hash of the row's id.

    Args:
        frames: the task's splits.  joined: the rows with all features, that they were made of.
        key: column of `joined` with the row's id. Rows whose id occurs twice are left out.
        files: writes the rows of a task with files.
    """
    import pandas as pd

    known = joined.drop_duplicates(key, keep=False)
    known = known.set_index(known[key].astype(str))
    found = cases(plan)
    distinct = [case for at, case in enumerate(found) if case.views not in [one.views for one in found[:at]]]
    for split, chosen in (("train", distinct), ("test", found)):
        rows = frames[split]
        place = known.index.get_indexer(pd.Index(rows["id"].astype(str)))
        rows, place = rows[place >= 0], place[place >= 0]
        rank, which = (_hashes(rows["id"], salt) for salt in _KEYS)
        for at, case in enumerate(chosen):
            if split == "train":
                picked = np.flatnonzero((which * len(chosen)).astype(np.int64) == at)
            else:
                picked = np.sort(np.argsort(rank, kind="stable")[:_MOST])
            made = _hide(rows.iloc[picked], known.iloc[place[picked]], case, plan)
            made[CASE], made[RANK] = case.name, rank[picked]
            files.write(made, folder / f"{split}_hidden-{at}.parquet")


def read_hidden(dataset: Path, split: str, share: float = 1.0) -> list[pd.DataFrame]:
    """What `write_hidden` wrote, one frame per case; of its rows a share, always the same."""
    import pandas as pd

    files = sorted(dataset.glob(f"{split}_hidden-*.parquet"), key=lambda file: int(file.stem.rpartition("-")[2]))
    frames = [pd.read_parquet(file, filters=[(RANK, "<", share)]) for file in files]
    return [frame.reset_index(drop=True) for frame in frames if len(frame)]


def _hashes(ids: pd.Series[Any], salt: str) -> NDArray[np.float64]:
    """A number from 0 to 1 for each id."""
    import pandas as pd

    hashed = pd.util.hash_array(ids.astype(str).to_numpy(dtype=object), hash_key=salt, categorize=False)
    return np.asarray(hashed >> np.uint64(11), dtype=np.float64) / 2.0**53


def _hide(rows: pd.DataFrame, facts: pd.DataFrame, case: Case, plan: Mapping[str, Any]) -> pd.DataFrame:
    """`rows` of a split as served in a case; `facts` has, for each, all that its features were derived from."""
    from feature_repo.stores.read_result import Read
    from feature_repo.stores.views import Views
    from pipelines.data.features import derive

    views = [view for view in plan["views"] if view["name"] in case.views]
    missing: dict[str, Any] = dict(Read.unavailable(Views({**plan, "views": views}), len(rows)).columns)
    derived = [name for transform in plan.get("transforms", []) for name in transform["outputs"]]
    served = facts.drop(columns=[name for name in derived if name in facts]).assign(**missing)
    try:
        served = derive(served, plan)
    except PlatformError:
        raise
    except Exception as err:  # whatever a task's own function raises
        raise PlatformError(
            "an on-demand feature cannot be derived without the features of a view",
            detail=f"{case.name}, without {', '.join(case.views)}: {type(err).__name__}: {err}",
            fix="let the function below feature_repo/transforms answer NaN for missing values, as a service gives them",
            code="bad_transform",
        ) from err
    changed: Sequence[str] = [name for name in (*missing, *derived) if name in rows]
    return rows.assign(**{name: served[name].to_numpy() for name in changed})
