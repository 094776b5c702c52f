"""Entities: what features are about. One definition for all domains."""

from __future__ import annotations

from feast import Entity, ValueType

customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, description="a card holder")
terminal = Entity(
    name="terminal", join_keys=["terminal_id"], value_type=ValueType.STRING, description="a till or a web shop"
)
person = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING, description="who is shown lists")
listed_item = Entity(name="item", join_keys=["item"], value_type=ValueType.STRING, description="what lists are of")
