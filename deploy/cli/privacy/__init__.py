"""Use cases about personal data."""
