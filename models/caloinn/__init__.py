"""CaloINN: a normalising flow for calorimeter showers (Ernst et al., 2023), as quantised in BitHEP section 5.1."""

from bitsearch.models.caloinn.presets import improved, task

__all__ = ["improved", "task"]
