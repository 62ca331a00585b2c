"""The kinds of folder that a run may be in: one reader each, and what they share."""
