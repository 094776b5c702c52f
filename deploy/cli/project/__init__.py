"""The project and this machine: doctor, new tasks, the MLflow page."""
