"""Where things live. A profile is one of these documents; nothing else differs between laptop and cluster."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from contracts.settings import Settings


class Endpoints(Settings):
    """Addresses of data, runs, tracking, bundles and features.

    An empty value means "under `home`", so that one folder holds everything of the embedded profile.
    """

    home: str = Field(".fairlead", description="folder of everything that has no address of its own")
    data: str = Field("", description="folder of dataset versions; default <home>/data")
    runs: str = Field("", description="folder of runs and their artifacts; default <home>/runs")
    cache: str = Field("", description="folder of the step cache; default <home>/cache")
    tracking: str = Field("", description="MLflow tracking and registry URI; default sqlite:///<home>/mlflow.db")
    artifacts: str = Field("", description="folder of published bundles; default <home>/bundles")
    features: str = Field("", description="folder of feature history and registries; default <home>/features")
    online: str = Field("", description="online store, a SQLite file; default <home>/features/online.db")
    predictions: str = Field("", description="folder of logged predictions; default <home>/predictions")

    def path(self, name: str) -> Path:
        """The absolute local folder or file of one of the fields above."""
        given: str = getattr(self, name)
        if given:
            return Path(given).expanduser().absolute()
        defaults = {"artifacts": "bundles", "online": "features/online.db"}
        return Path(self.home).expanduser().absolute() / defaults.get(name, name)

    @property
    def tracking_uri(self) -> str:
        """The MLflow URI; the folder of an embedded SQLite file is not created here."""
        return self.tracking or f"sqlite:///{Path(self.home).expanduser().absolute()}/mlflow.db"

    def resolved(self) -> Endpoints:
        """The same addresses, all absolute, so that they can cross a process border."""
        names = ["data", "runs", "cache", "artifacts", "features", "online", "predictions"]
        values = {name: str(self.path(name)) for name in names}
        home = str(Path(self.home).expanduser().absolute())
        return Endpoints(home=home, tracking=self.tracking_uri, **values)
