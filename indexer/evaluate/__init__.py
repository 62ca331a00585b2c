"""Evaluation: how right an index is, and what it is good for."""
