"""Documents become grounded question-answer pairs."""
