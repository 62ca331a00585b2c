"""The online half: HTTP over an open index."""
