"""How the controller sees and acts for a profile: on this machine or on a cluster, as its runs and rollouts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from contracts.errors import PlatformError
from deploy.cli.loop.planned_run import plan, source_of
from deploy.cli.loop.sources import look_at_source
from deploy.cli.rollouts.asking import hand_over, how_it_ended, is_served, under_way
from services.controller.controller import ACTOR
from services.controller.observations import Observations
from services.controller.signals import firing, read_report
from services.controller.state import States, WatchState

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.endpoints import Endpoints
    from contracts.loop_policy import LoopPolicy
    from contracts.registry import ModelVersion
    from deploy.cli.loop.runs import Runs
    from services.controller.state import Source

T = TypeVar("T")


class ProfileHands:
    """Sees and acts for one profile.

    Attributes:
        champions: by name, what is watched; set before each pass.
    """

    def __init__(self, endpoints: Endpoints, states: States, runs: Runs, profile: str, prometheus: str = "") -> None:
        self._endpoints, self._states, self._runs = endpoints, states, runs
        self._profile, self._prometheus = profile, prometheus
        self.champions: dict[str, tuple[ModelVersion, BundleDocument]] = {}

    def observe(self, policy: LoopPolicy, state: WatchState) -> Observations:
        """What there is to see of a model now."""
        silent: list[str] = []
        champion, document = self.champions[state.model]
        version = champion.version

        def seen(look: Callable[[], T]) -> T | None:
            try:
                return look()
            except PlatformError as err:
                silent.append(f"{err.headline}: no action")
                return None

        def source() -> Source:
            return look_at_source(source_of(self._runs, document, policy), policy.new_rows > 0)

        rollout = seen(lambda: under_way(self._profile, state.model))
        log, asked = self._endpoints.uri("predictions"), self._prometheus
        return Observations(
            version=version,
            report=seen(lambda: read_report(log, state.model, version, champion.digest)),
            alerts=seen(lambda: firing(asked, state.model)) if asked else None,
            run=seen(lambda: self._runs.look(state.run)) if state.run else None,
            source=seen(source) if policy.on_new_data else None,
            approved=self._states.said(state.model, "approve"),
            resumed=self._states.said(state.model, "resume"),
            outcome=seen(lambda: how_it_ended(self._profile, state.model, state.rollout)) if state.rollout else None,
            rollout="it cannot be read" if rollout is None else rollout,
            can_roll_out=seen(lambda: is_served(self._profile, state.model)) or False,
            silent=tuple(silent),
        )

    def start_run(self, policy: LoopPolicy, state: WatchState, run: str) -> None:
        """Start the run of this name, or nothing when it was ever started.

        Raises:
            PlatformError: it cannot be asked so, or cannot be started.
        """
        _, document = self.champions[state.model]
        self._runs.start(plan(self._endpoints, self._runs, document, policy, run, self._profile))

    def start_rollout(self, policy: LoopPolicy, ref: str, action: str, compared: bool) -> None:
        """Ask who serves the model with rollouts; asked again with the same action it is the same rollout."""
        if policy.rollout != "none":
            reason = "its run passed the gate" + (
                "" if compared else "; it may answer differently: the world has changed"
            )
            hand_over(self._profile, ref, policy.rollout, action, ACTOR, reason, compared)
