"""Answers become scores, differences and a verdict."""
