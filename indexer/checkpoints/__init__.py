"""Checkpoints: files that hold a model's weights at moments of its training, with their learning rates."""
