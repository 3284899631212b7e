"""Ternary layers one after the other as one operator: README.md is its specification."""
