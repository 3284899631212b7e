"""P-DAT: a dual attention transformer that tells quark from gluon jets (He and Wang, 2023), BitHEP section 3."""

from bitsearch.models.pdat.presets import task

__all__ = ["task"]
