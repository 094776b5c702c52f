"""A study: trials in a file or an SQL server that outlive the processes that work on them.

Optuna (Akiba et al., KDD 2019) samples and stores; what is added here is that nothing is lost: a storage that is away
is waited for, and a trial whose process is gone is given to the next one.
"""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

from contracts.errors import PlatformError
from contracts.file_lock import file_lock
from pipelines.search_space import SEARCH_PODS, Dimension, SearchConfig

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

T = TypeVar("T")
Direction = Literal["minimize", "maximize"]

PASSWORD = "FAIRLEAD_SEARCH_PASSWORD"
WORKER, ERROR, SPARE = "worker", "error", "spare"  # attributes of a trial: who works on it, why it has no value, and
# that it was one more than wanted
HOPELESS = 5  # failed trials without one that did not, after which no more are tried
_SIGNED = "signed"  # attribute of a study: what its values belong to
_BEAT, _GRACE = 60, 180  # seconds between signs of life, and until a trial of another machine counts as lost
SILENT = 1.5 * _GRACE  # seconds that the trials of pods are waited for that may have been killed
NAMELESS = 15.0  # seconds until a trial counts as lost that nobody has put a name on
_TRIES = 2  # more, of a trial whose process was killed
_SHORTEST, _LONGEST = 0.5, 5.0  # seconds between two looks at a storage that is away


def address(config: SearchConfig, folder: Path) -> str:
    """Where trials are kept: an SQLAlchemy address with its password, or a file of `folder`.

    Raises:
        PlatformError: ``code="bad_config"``: a password stands in the configuration, which everybody can read.
    """
    if not config.storage:
        return str(folder / "study.journal")
    head, mark, rest = config.storage.partition("://")
    user, at, place = rest.rpartition("@")
    if not mark or (at and ":" in user):
        raise PlatformError(
            f"search.storage is no SQLAlchemy address without a password: {head}{mark}{'...@' if at else ''}{place}",
            detail=f"a password is read from {PASSWORD}",
            fix="write it as mysql+pymysql://USER@HOST/DATABASE or sqlite:////absolute/path.db",
            code="bad_config",
        )
    password = os.environ.get(PASSWORD, "")
    return f"{head}://{user}:{quote(password, safe='')}@{place}" if at and password else config.storage


def open_storage(where: str) -> BaseStorage:
    """The storage at an `address`; tables or a file are made where there are none."""
    import optuna
    from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")  # ours is `beat`
    if "://" not in where:
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(where, lock_obj=JournalFileOpenLock(where)))
    # No ping before each use of a connection: one that is gone fails, and what it was to do is done again.
    local = {"connect_args": {"timeout": 30}} if where.startswith("sqlite") else {}
    from pipelines.search.sql_storage import SqlStorage

    backend = RDBStorage(
        where,
        engine_kwargs=local,
        heartbeat_interval=_BEAT,
        grace_period=_GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_TRIES),
    )
    return SqlStorage(backend)


def patiently(call: Callable[[], T], patience: float, doing: str) -> T:
    """The result of `call`, tried again while the storage is away.

    Raises:
        PlatformError: ``code="no_storage"``: it is away for longer than `patience` seconds.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    until, wait = time.monotonic() + patience, _SHORTEST
    while True:
        try:
            return call()
        # Optuna 5.0 fails with UnboundLocalError in the handling of a lost connection.
        except (StorageInternalError, SQLAlchemyError, UnboundLocalError, OSError) as err:
            if time.monotonic() > until:
                reason = str(err.__cause__ or err).splitlines()[0][:300]
                raise PlatformError(
                    f"the storage of the search is away: {doing}",
                    detail=f"for more than {patience:g} s; {type(err).__name__}: {reason}",
                    fix="start it and go on with the run: what was tried is kept",
                    code="no_storage",
                ) from err
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST)


def make_study(
    storage: BaseStorage,
    name: str,
    directions: Sequence[Direction],
    first: Mapping[str, Any],
    signed: str,
    patience: float,
) -> Study:
    """The study called `name`, made before any process works on it; `first` is the trial that it begins with.

    Raises:
        PlatformError: ``code="bad_config"``: there is one of that name for something else than `signed` says.
    """
    import optuna

    def made() -> Study:
        study = optuna.create_study(storage=storage, study_name=name, directions=[*directions], load_if_exists=True)
        if _SIGNED not in study.user_attrs:
            study.set_user_attr(_SIGNED, signed)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(dict(first))
        return study

    study = patiently(made, patience, "making the study")
    if study.user_attrs[_SIGNED] != signed or [one.name.lower() for one in study.directions] != list(directions):
        raise PlatformError(
            f"there is a search called {name!r} already, of other data, settings, metrics or another space",
            detail="its trials cannot be compared with those of this search",
            fix="give this one another name: --name NAME",
            code="bad_config",
        )
    return study


def token(index: int) -> str:
    """Who a process of a search is: machine, process and number; before them the run, where it has pods."""
    return f"{_of_run()}{socket.gethostname()}:{os.getpid()}:{index}"


def _of_run() -> str:
    """The run whose pods work on a search, which one pod of it knows of another."""
    from pipelines.io.record import RUN

    run = os.environ.get(RUN, "") if os.environ.get(SEARCH_PODS) else ""
    return f"{run}/" if run else ""


def counted(trials: Sequence[FrozenTrial]) -> int:
    """Trials that are done or under way, each once: one that was lost and given away again does not count."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return sum(one.state in states or failed(one) for one in trials)


def failed(trial: FrozenTrial) -> bool:
    """Whether a trial has ended without a value, for good."""
    return trial.state.name == "FAIL" and ERROR in trial.user_attrs


def ask(
    study: Study, most: int, who: str, lock: Path, patience: float, look: bool, others: int = 0, last: int = -1
) -> Trial | None:
    """The next trial, or None when there are `most`, or nothing works. Processes of this machine ask in turn.

    Args:
        look: first for trials that nobody works on; after a storage was away that is done anyway.
        others: workers of other machines, which may ask at the same moment: one trial too many is given back.
        last: number of the trial of `who` before, where that came to a value: trials are counted, which reads all
            that is new, only where there may be `most` of them by now.
    """
    from optuna.trial import TrialState

    tries = 0

    def asked() -> Trial | None:
        nonlocal tries
        tries += 1
        if abandon := getattr(study._storage, "abandon", None):
            abandon()
        if look or tries > 1:
            reclaim(study, who)
        with _asking(study, who):
            return next_one()

    def next_one() -> Trial | None:
        before = most
        if last < 0 or last + 2 + others >= most or tries > 1:
            trials = study.get_trials(deepcopy=False)
            before = counted(trials)
            if before >= most or hopeless(trials):
                return None
        trial = study.ask()
        if trial.user_attrs.get(WORKER) != who:
            trial.set_user_attr(WORKER, who)
        if (trial.number >= most and before == most) or (others and before < most <= before + others):
            known = [one for one in study.get_trials(deepcopy=False) if counted([one])]
            if sum(one.number < trial.number for one in known) >= most:
                trial.set_user_attr(SPARE, True)
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                return None
        return trial

    with file_lock(lock):
        return patiently(asked, patience, "asking for a trial")


def _asking(study: Study, who: str) -> AbstractContextManager[None]:
    """What makes asking cheap, where the storage knows how."""
    asking: Any = getattr(study._storage, "asking", None)
    return asking(WORKER, who) if asking else nullcontext()


def written(study: Study, trial: Trial) -> None:
    """Write the values of a trial where the storage has kept them back: one that is lost is tried with the same."""
    if flush := getattr(study._storage, "flush", None):
        flush(trial._trial_id)


def complete(study: Study, trial: Trial, values: list[float]) -> None:
    """End a trial with its values. `Study.tell` reads it before and afterwards, for what it returns."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    if not all(map(isfinite, values)):
        study.tell(trial.number, values, skip_if_finished=True)  # says what is wrong with them
        return
    with suppress(UpdateFinishedTrialError):  # it arrived before the connection was lost
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)


def hopeless(trials: Sequence[FrozenTrial]) -> bool:
    """Whether `HOPELESS` trials have failed, and none has not."""
    done = any(one.state.name in ("COMPLETE", "PRUNED") for one in trials)
    return not done and sum(map(failed, trials)) >= HOPELESS


def reclaim(study: Study, idle: str = "", ended: bool = False) -> int:
    """Give trials that nobody works on to the next one, with the same values; how many there were.

    Args:
        idle: a worker that works on none now, nor does the pod whose place it has taken.
        ended: whether all other pods of this run are gone.
    """
    from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
    from optuna.trial import TrialState

    again, found = RetryHeartbeatStaleTrialCallback(max_retry=_TRIES), 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _lost(trial, idle, ended):
            continue
        if len(trial.system_attrs.get("retry_history", ())) >= _TRIES:
            reason = f"its process was killed {_TRIES + 1} times; memory may have run out"
            study._storage.set_trial_user_attr(trial._trial_id, ERROR, reason)  # a frozen trial has no setter
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        again(study, study.trials[trial.number])
        found += 1
    fail_stale_trials(study)
    return found


def _lost(trial: FrozenTrial, idle: str, ended: bool) -> bool:
    """Whether nobody works on a running trial.

    Processes of other machines are judged by their signs of life alone, but for pods of this run: one of the same
    number has come after the other, since Kubeflow starts it again when it is gone.
    """
    owner = str(trial.user_attrs.get(WORKER, ""))
    if not owner:  # the storage went away while it was made
        began = trial.datetime_start
        return began is not None and (datetime.now() - began).total_seconds() > NAMELESS
    place, process, number = owner.rsplit(":", 2)
    if owner == idle:
        return True
    run, mark, host = place.rpartition("/")
    if host != socket.gethostname():
        return bool(mark) and run + mark == _of_run() and (ended or number == idle.rpartition(":")[2])
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def beat(study: Study, trial: Trial) -> None:
    """A sign of life of a trial, where the storage keeps them."""
    if record := getattr(study._storage, "record_heartbeat", None):
        record(trial._trial_id)


def suggested(trial: Trial, dimensions: Mapping[str, Dimension], known: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's values by key; of a dimension whose condition does not hold none. `known` has the recipe's values."""
    found: dict[str, Any] = {}
    for key, dimension in dimensions.items():
        if all({**known, **found}.get(other) in [*values] for other, values in dimension.when.items()):
            found[key] = _suggest(trial, key, dimension)
    return found


def stored(dimension: Dimension, value: Any) -> Any:
    """A value as a study keeps it: lists and such as text."""
    plain = not dimension.choices or value is None or isinstance(value, bool | int | float | str)
    return value if plain else json.dumps(value)


def _suggest(trial: Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices:
        texts = [stored(dimension, choice) for choice in dimension.choices]
        return dimension.choices[texts.index(trial.suggest_categorical(key, texts))]
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.whole:
        return trial.suggest_int(key, int(low), int(high), log=dimension.log)
    return shortened(trial.suggest_float(key, float(low), float(high), log=dimension.log))


def shortened(value: Any) -> Any:
    """A number as it is trained with and shown: five digits, so that it can be typed."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def sampler(config: SearchConfig, seed: int, conditional: bool) -> Any:
    """Optuna's sampler; processes of one search need different seeds, or they try the same."""
    from optuna import samplers

    kinds: Mapping[str, Callable[[], Any]] = {
        "tpe": lambda: samplers.TPESampler(seed=seed, group=conditional),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
    }
    return kinds[config.sampler]()


def pruner(config: SearchConfig, reports: str) -> Any:
    """Optuna's pruner; none where a training reports nothing, or more than one metric is optimised."""
    from optuna import pruners

    if not reports or len(config.metrics) > 1:
        return pruners.NopPruner()
    kinds: Mapping[str, Callable[[], Any]] = {
        "none": pruners.NopPruner,
        "auto": lambda: pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        "median": lambda: pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        "hyperband": pruners.HyperbandPruner,
    }
    return kinds[config.pruner]()
