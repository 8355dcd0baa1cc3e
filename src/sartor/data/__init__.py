"""Files become Examples and a Ledger; no torch, no tokenizer."""
