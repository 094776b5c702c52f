"""What ``fairlead doctor`` checks; every check is quick and changes nothing."""

from deploy.cli.project.checks.extras import check_packages
from deploy.cli.project.checks.finding import Finding
from deploy.cli.project.checks.kubeflow import check_pipelines
from deploy.cli.project.checks.kubernetes import check_cluster
from deploy.cli.project.checks.machine import check_machine
from deploy.cli.project.checks.places import check_places

__all__ = ["Finding", "check_cluster", "check_machine", "check_packages", "check_pipelines", "check_places"]
