"""One module a page; each calls `sartor.api` and draws what it gives."""
