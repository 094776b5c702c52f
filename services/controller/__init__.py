"""The loop's controller: what the monitor saw becomes a run, and a run whose model passed the gate a rollout."""
