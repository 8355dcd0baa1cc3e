"""Attacks from outside, one file for each class of fault; a package, because other tests have the same file names."""
