"""Tokens become a tuned model."""
