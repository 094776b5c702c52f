"""The commands: one file per subject, each with ``register(app)``; heavy imports happen inside the commands."""
