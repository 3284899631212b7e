"""The search and everything around it that a run does."""
