"""What the command line does on Kubernetes: by kubectl and helm, with the rights of whoever calls it."""
