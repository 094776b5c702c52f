"""The one command line, ``fairlead``: composes pipelines, services and registry for people and scripts."""
