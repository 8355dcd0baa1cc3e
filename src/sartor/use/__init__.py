"""A model becomes text, scores, a verdict and files."""
