"""How a training is federated: a section of a recipe. This module is imported with every task, so it stays light."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Fault = Literal["drop", "late", "nan", "shape", "schema", "sign", "flip"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FederationConfig:
    """A training by sites that keep their rows, in place of one that has them all; off without sites.

    clients: sites of a simulation, processes of this machine that share the training rows.  split: how: "iid",
    "dirichlet" (labels are spread by `alpha`, the less the more unevenly) or a column, whose values stay together.
    sites: names of partners' sites instead, as in their certificates; they connect to `listen` (host:port) and keep to
    `certificates`, a folder with ca.pem, server.crt and server.key.
    rounds, local_epochs: of each site in each round.  proximal: mu of FedProx, how much a site is held back to the
    model that it was given (T. Li et al.: Federated optimization in heterogeneous networks, 2020).  momentum: of the
    coordinator (T.-M. Hsu et al.: Measuring the effects of non-identical data distribution, 2019).
    rule: how updates become one: "mean" weighs by rows (FedAvg, B. McMahan et al. 2017); "trimmed" leaves out the
    share `trim` at both ends of every coordinate (D. Yin et al. 2018); "screened" is the mean without
    the share `trim` of those that serve the coordinator's validation rows least (C. Xie et al.: Zeno, 2019).
    norm_bound: an update that is longer than so many times the median is cut to that; 0 cuts nothing.
    unit: of ``privacy.epsilon``: "row", a site's own training is private, and each of its steps draws the share `drawn`
    of the rows; or "site", all rows of one together, which takes hundreds of sites.
    secure: the coordinator learns the sum of the updates only (`pipelines.federation.secure_sum`).
    quorum: share of the sites that must answer.  deadline: seconds for an answer.  join: seconds for sites to come.
    faults: what simulated sites do wrong, to rehearse it: site -> drop, late, nan, shape, schema, sign or flip.
    """

    clients: Annotated[int, Field(ge=0, le=200)] = 0
    split: str = "iid"
    alpha: Annotated[float, Field(gt=0)] = 0.5
    sites: tuple[str, ...] = ()
    listen: str = ""
    certificates: str = ""
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 60
    local_epochs: Annotated[int, Field(ge=1, le=100)] = 1
    proximal: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.7
    rule: Literal["mean", "trimmed", "screened"] = "mean"
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    norm_bound: Annotated[float, Field(ge=0)] = 2.0
    unit: Literal["row", "site"] = "row"
    drawn: Annotated[float, Field(gt=0, le=1)] = 0.2
    secure: bool = False
    quorum: Annotated[float, Field(gt=0, le=1)] = 0.6
    deadline: Annotated[float, Field(gt=0)] = 60.0
    join: Annotated[float, Field(gt=0)] = 120.0
    faults: Mapping[str, Fault] = field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.clients and self.sites:
            raise ValueError("give clients, which are simulated, or sites, which are partners', not both")
        if self.sites and not (self.listen and self.certificates):
            raise ValueError("sites connect from outside: give listen (host:port) and certificates (a folder) too")
        if self.secure and self.rule != "mean":
            raise ValueError(f"rule {self.rule} looks at single updates, which secure hides: take rule mean")
        if self.is_on and self.secure and len(self.names) < 3:
            raise ValueError("secure needs 3 sites: of 2, each knows the other's update from the sum")
        if unknown := sorted(set(self.faults) - set(self.names[: self.clients])):
            raise ValueError(f"faults names {unknown[0]}, which is no simulated site")
        return self

    @property
    def is_on(self) -> bool:
        """Whether sites train."""
        return bool(self.clients or self.sites)

    @property
    def names(self) -> tuple[str, ...]:
        """The sites."""
        return self.sites or tuple(f"site-{at + 1}" for at in range(self.clients))

    @property
    def least(self) -> int:
        """How many sites must answer."""
        return max(1, math.ceil(self.quorum * len(self.names) - 1e-9))
