"""Projections: from the per-block gradients of one checkpoint to one vector of fixed width.

A projection only supplies the two matrices of a sandwich, or asks for dense blocks; it knows no rule.
"""
