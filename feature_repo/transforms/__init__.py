"""On-demand features: pure numpy functions that training and serving both call; packages name modules of theirs."""

from contracts.plugins import Rooms

TRANSFORMS = Rooms("transform", "feature_repo.transforms", "")
