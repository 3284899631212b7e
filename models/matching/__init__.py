"""Conditional flow matching with transformers: networks, the solver of their differential equation, checkpoints."""
