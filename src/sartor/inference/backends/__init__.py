"""One file per engine that can answer instead of ours."""
