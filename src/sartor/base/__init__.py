"""What every other package uses: types, errors, settings, messages, run folders."""
