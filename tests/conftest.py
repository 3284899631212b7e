"""Fixtures that more than one file uses; models are built by `tests/ternary.py`."""
