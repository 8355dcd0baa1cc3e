"""Tokens become a tuned model: plan, loop, optimizer, checkpoints."""
