"""The loop: watched models, runs that start by themselves, and the audit log of what was done."""
