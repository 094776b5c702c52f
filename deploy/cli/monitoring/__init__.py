"""Deployed models under watch: what `fairlead monitor` shows."""
