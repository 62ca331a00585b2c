"""Building an index: task and checkpoints in, a directory out."""
