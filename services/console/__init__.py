"""The platform on one web page: models, runs, rollouts, alerts and the audit log, as a `Source` gives them."""
