"""A router of models: one address with OpenAI's interface before several services and providers that have it too."""
