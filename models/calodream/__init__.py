"""CaloDREAM: flow matching with transformers for calorimeter showers, as quantised in BitHEP section 5.2.

One network makes the energies of the layers, the other distributes them over the voxels (Favaro et al., 2024).
"""

from bitsearch.models.calodream.presets import improved, task

__all__ = ["improved", "task"]
