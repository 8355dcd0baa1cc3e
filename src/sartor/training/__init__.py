"""Trains a model on token sequences: plan, pre-flight, loop, stages, optimizers, checkpoints."""
