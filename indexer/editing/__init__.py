"""Edits of an index: each makes a new version, which shares with the one before all that has not changed."""
