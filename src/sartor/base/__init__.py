"""The vocabulary that every layer speaks: types, errors, settings, run folders."""
