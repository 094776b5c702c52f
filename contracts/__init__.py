"""What the other packages agree on; may be imported by all of them and imports none of them."""

import os

# ONNX Runtime reports to its makers unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
