"""Engines are discovered, not listed: every module here with an ``ENGINE``, and those that other packages add.

A module is named after the engine in bundle.json, with the modality behind it where several modalities have one of that
name: ``lightgbm``, ``onnx_text``.
"""

from __future__ import annotations

from typing import Any

from contracts.bundle import Bundle, BundleDocument
from contracts.engine import Engine, EngineOptions, EngineSpec
from contracts.errors import PlatformError
from contracts.plugins import Rooms

ENGINES = Rooms("engine", "contracts.engines", "ENGINE")


def find_engine(document: BundleDocument) -> EngineSpec:
    """The engine that a bundle names, of its modality where several modalities have one of that name.

    Raises:
        PlatformError: ``code="unknown_engine"``.
    """
    room = f"{document.engine}_{document.modality}"
    found: EngineSpec = ENGINES.get(room if room in ENGINES.names() else document.engine)
    return found


def load_engine(bundle: Bundle, **options: Any) -> Engine:
    """Load the model of a verified bundle; imports the engine's library here and not before.

    options: as `EngineOptions` has them.

    Raises:
        PlatformError: ``code="unknown_engine"``, ``"missing_package"`` when the engine's library is not installed,
            ``"bad_bundle"`` when the engine is for another modality.
    """
    document = bundle.document
    spec = find_engine(document)
    if spec.modality != document.modality:
        raise PlatformError(
            f"bundle refused: {bundle.path}",
            detail=f"engine {spec.name} is for {spec.modality} models, not for {document.modality}",
            fix="publish the model again",
            code="bad_bundle",
        )
    try:
        return spec.load(bundle, EngineOptions(**options))
    except ImportError as err:
        image = f", or serve it with an image built with {spec.image}" if spec.image else ""
        raise PlatformError(
            f"cannot load {document.name}: {err.name} is not installed",
            detail=f"its engine is {document.engine}",
            fix=f"pip install 'fairlead[{spec.extra}]'{image}",
            code="missing_package",
        ) from err
