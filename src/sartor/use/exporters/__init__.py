"""One file per form in which a model leaves the house."""
