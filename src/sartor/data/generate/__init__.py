"""Documents become grounded questions and answers."""
