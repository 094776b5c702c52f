"""``python -m deploy.cli`` is ``fairlead``."""

from deploy.cli.app import main

main()
