"""One rule a file: `find(subject)` yields findings, `EXAMPLES` are texts and the codes it must find in them."""
