"""What holds for every test."""

from __future__ import annotations

import os
import signal
import tempfile

from hypothesis import settings

# A machine may be busy: how long an example takes says nothing about the code.
settings.register_profile("fairlead", deadline=None)
settings.load_profile("fairlead")

# The list of homes of whoever runs the tests is not for theirs.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="fairlead-state-")

# A job in the background of a shell ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
