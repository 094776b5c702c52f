"""Reading and joining features fast: the Feast plug-ins and the reader that services use without Feast."""
