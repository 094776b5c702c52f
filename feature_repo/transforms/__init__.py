"""On-demand features: pure numpy functions that training and serving both call."""
