"""Recording a training run as it happens: its checkpoints, the learning rates it used, its losses."""
