"""SMEFTNet: a graph network for the decay-plane angle of boosted W bosons, as quantised in BitHEP section 4."""

from bitsearch.models.smeftnet.presets import task

__all__ = ["task"]
