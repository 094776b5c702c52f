"""Recipes that learn the class of a text from its fields; what they write, `contracts` serves without them."""
