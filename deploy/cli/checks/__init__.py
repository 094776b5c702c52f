"""What ``fairlead doctor`` checks; every check is quick and changes nothing."""

from deploy.cli.checks.cluster import check_cluster
from deploy.cli.checks.finding import Finding
from deploy.cli.checks.machine import check_machine
from deploy.cli.checks.packages import check_packages
from deploy.cli.checks.pipelines import check_pipelines
from deploy.cli.checks.places import check_places

__all__ = ["Finding", "check_cluster", "check_machine", "check_packages", "check_pipelines", "check_places"]
