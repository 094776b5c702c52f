"""Model servers: one folder per modality; they load any bundle and share ``runtime``."""

import os

# `bentoml serve` sets this for several workers per service. We run one, and values in memory cost a tenth of
# values in files; prometheus_client decides when it is imported, which modules of this package do.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
