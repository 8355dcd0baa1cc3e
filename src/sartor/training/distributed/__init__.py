"""Several processes as one: collectives, sharded checkpoints, DeepSpeed."""
