"""One module per page; each calls `sartor.api` and shows the result."""
