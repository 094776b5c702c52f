"""Suites: what a model that writes is asked, how its answers are measured, and how two models are compared by them."""
