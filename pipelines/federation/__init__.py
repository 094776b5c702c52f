"""Federated training: sites keep their rows, and a coordinator adds up what they have learned."""
