"""One file per way of writing a conversation as a row."""
