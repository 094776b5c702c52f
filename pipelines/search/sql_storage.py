"""Trials in an SQL server by few statements: what a process does with its own trial is not asked back from the server.

Optuna 5 writes each parameter and attribute in a transaction of its own, and reads whole trials again and again. Here a
new trial is a draft until its values are chosen: then they are written together, before anybody trains with them.
Of other trials only those are read whose state has changed. A transaction that the server may have taken although the
connection was lost may be made again: it leaves the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState, create_trial


@dataclass
class _Draft:
    """What is known of a trial here and not in the server yet."""

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)


class SqlStorage(_CachedStorage):
    """Optuna's storage of an SQL server, for one thread that works on one trial at a time.

    Args:
        backend: writes what is not written here.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._asked_by: tuple[str, str] | None = None
        self._drafts: dict[int, _Draft] = {}
        self._mine: dict[int, FrozenTrial] = {}  # written by this process alone, as they are in the server

    @contextmanager
    def asking(self, name: str, who: str) -> Iterator[None]:
        """While the next trial is asked for: it is made with the attribute `name`, and only what is new is read."""
        self.abandon()
        self._asked_by = name, who
        try:
            yield
        finally:
            self._asked_by = None

    def flush(self, trial_id: int) -> None:
        """Write a draft in one transaction.

        Raises:
            UpdateFinishedTrialError: the trial has ended, since it was taken for lost.
        """
        draft = self._drafts.get(trial_id)
        if draft is None:
            return
        of = {"trial_id": trial_id}
        params = [
            {**of, "param_name": name, "param_value": value, "distribution_json": distribution_to_json(one)}
            for name, (value, one) in draft.params.items()
        ]
        tables: list[tuple[Any, list[dict[str, Any]]]] = [
            (_table(models.TrialParamModel), params),
            (_table(models.TrialUserAttributeModel), [_attribute(trial_id, *one) for one in draft.user.items()]),
            (_table(models.TrialSystemAttributeModel), [_attribute(trial_id, *one) for one in draft.system.items()]),
        ]
        with _create_scoped_session(self._backend.scoped_session, ignore_integrity_error=True) as session:
            state = session.execute(sqlalchemy.select(models.TrialModel.state).filter_by(**of)).scalar_one()
            if state.is_finished():
                del self._drafts[trial_id]
            self._backend.check_trial_is_updatable(trial_id, state)
            for table, rows in tables:
                if rows:
                    session.execute(table.insert(), rows)
        del self._drafts[trial_id]

    def abandon(self) -> None:
        """Forget the drafts of a call that was lost; their trials are in the server, with the name of who asked."""
        self._drafts.clear()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Optuna's, which is told who works on the trial in the same transaction."""
        if template_trial is not None or self._asked_by is None:
            return super().create_new_trial(study_id, template_trial)
        name, who = self._asked_by
        began = datetime.now()
        with _create_scoped_session(self._backend.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)  # numbers are given in turn
            row: Any = models.TrialModel(study_id=study_id, state=TrialState.RUNNING, datetime_start=began)
            session.add(row)
            session.flush()
            row.number = row.count_past_trials(session)
            trial_id, number = row.trial_id, row.number
            session.execute(_table(models.TrialUserAttributeModel).insert(), [_attribute(trial_id, name, who)])
        trial = create_trial(state=TrialState.RUNNING, user_attrs={name: who})
        trial.number, trial._trial_id, trial.datetime_start = number, trial_id, began
        with self._lock:
            self._studies.setdefault(study_id, _StudyInfo())
            self._add_trials_to_cache(study_id, [trial])
        self._mine[trial_id], self._drafts[trial_id] = trial, _Draft()
        return int(trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A draft as it is here, else Optuna's."""
        return self._mine[trial_id] if trial_id in self._drafts else super().get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Optuna's, kept for `flush` while the trial is a draft."""
        draft = self._drafts.get(trial_id)
        if draft is None:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            return
        study = self._studies[self._trial_id_to_study_id_and_number[trial_id][0]]
        known = study.param_distribution
        if param_name not in known:
            of = (one.distributions[param_name] for one in study.trials.values() if param_name in one.distributions)
            known[param_name] = next(of, distribution)
        check_distribution_compatibility(known[param_name], distribution)
        draft.params[param_name] = param_value_internal, distribution
        mine = self._mine[trial_id]
        mine.distributions[param_name] = distribution
        mine.params[param_name] = distribution.to_external_repr(param_value_internal)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Optuna's, kept for `flush` while the trial is a draft."""
        if trial_id in self._drafts:
            self._drafts[trial_id].user[key] = self._mine[trial_id].user_attrs[key] = value
            return
        self._mine.pop(trial_id, None)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Optuna's, kept for `flush` while the trial is a draft."""
        if trial_id in self._drafts:
            self._drafts[trial_id].system[key] = self._mine[trial_id].system_attrs[key] = value
            return
        self._mine.pop(trial_id, None)
        super().set_trial_system_attr(trial_id, key, value)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Optuna's."""
        self.flush(trial_id)
        self._mine.pop(trial_id, None)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Optuna's; of a trial that nobody else has written to by two statements."""
        self.flush(trial_id)
        mine = self._mine.pop(trial_id, None)
        if mine is None or state != TrialState.COMPLETE or values is None or not self._completed(trial_id, values):
            return super().set_trial_state_values(trial_id, state, values)  # which says what is wrong
        mine.values, mine.datetime_complete, mine.state = [*values], datetime.now(), state
        return True

    def _completed(self, trial_id: int, values: Sequence[float]) -> bool:
        """Whether the trial was running, and has these values now."""
        trials = _table(models.TrialModel)
        running = trials.c.trial_id == trial_id, trials.c.state == TrialState.RUNNING
        ends = {"state": TrialState.COMPLETE, "datetime_complete": datetime.now()}
        rows = []
        for objective, value in enumerate(values):
            kept, kind = models.TrialValueModel.value_to_stored_repr(value)
            rows.append({"trial_id": trial_id, "objective": objective, "value": kept, "value_type": kind})
        with _create_scoped_session(self._backend.scoped_session) as session:
            found: Any = session.execute(trials.update().where(*running).values(**ends))
            if found.rowcount == 1:
                session.execute(_table(models.TrialValueModel).insert(), rows)
        return bool(found.rowcount == 1)

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        """Read nothing while values of a draft are chosen: they follow from what was read when it was asked for."""
        if self._asked_by is not None:
            self._read_changes(study_id)
        elif not self._drafts:
            super()._read_trials_from_remote_storage(study_id)

    def _read_changes(self, study_id: int) -> None:
        """Read the trials whose state is not what is known here."""
        row = models.TrialModel
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            unfinished = row.trial_id.in_(study.unfinished_trial_ids)
            news = sqlalchemy.or_(row.trial_id > study.last_finished_trial_id, unfinished)
            asked = sqlalchemy.select(row.trial_id, row.state).where(row.study_id == study_id, news)
            with _create_scoped_session(self._backend.scoped_session) as session:
                states: dict[int, TrialState] = {one.trial_id: one.state for one in session.execute(asked)}
            known = {one._trial_id: one.state for one in study.trials.values() if one._trial_id in states}
            changed = {trial_id for trial_id, state in states.items() if known.get(trial_id) != state}
            if changed:
                # The limit is one that lets through what is in `changed`, and what came meanwhile.
                found = self._backend._get_trials(study_id, None, changed, max(changed))
                self._add_trials_to_cache(study_id, found)
                states |= {one._trial_id: one.state for one in found if one._trial_id in states}
            for trial_id, state in states.items():
                if state.is_finished():
                    study.last_finished_trial_id = max(study.last_finished_trial_id, trial_id)
                    study.unfinished_trial_ids.discard(trial_id)
                else:
                    study.unfinished_trial_ids.add(trial_id)


def _table(model: Any) -> Any:
    """The table of a model: what is written to it concerns no object that is in memory."""
    return model.__table__


def _attribute(trial_id: int, name: str, value: Any) -> dict[str, Any]:
    return {"trial_id": trial_id, "key": name, "value_json": json.dumps(value)}
