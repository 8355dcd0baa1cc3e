"""`python -m sartor`, for where the command is not on the path."""

from sartor.cli import main

main()
