"""Models and prompts asked by suites."""
