"""What the other packages agree on; may be imported by all of them and imports none of them."""
