"""Sartor fits a language model to your own data, and proves the fit."""
