"""One file per kind of file or hub that rows are read from."""
