"""Pages about a run and its model, as HTML: the model card, the data report, and what Kubeflow shows."""
