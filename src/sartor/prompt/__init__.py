"""Messages become segments, ids and labels; no torch."""
