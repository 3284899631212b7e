"""The one thing that varies: which precision each linear layer has."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision


class Assignment(Mapping[str, Precision]):
    """Map every linear layer of a network to a precision; immutable, hashable, ordered as the network is."""

    def __init__(self, precisions: Mapping[str, Precision | str]) -> None:
        self._precisions = {layer: _precision(layer, value) for layer, value in precisions.items()}

    @classmethod
    def read(cls, path: Path) -> "Assignment":
        """Read JSON that maps layers to precisions.

        Raises:
            ConfigurationError: the file is missing or holds anything else.
        """
        try:
            return cls(json.loads(path.read_text()))
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"{path}: {error}; expected JSON that maps layers to precisions"
            ) from error

    @classmethod
    def of(
        cls, layers: Iterable[str], quantized: Iterable[str] = (), precision: Precision = Precision.TERNARY
    ) -> "Assignment":
        """Give `quantized` layers `precision` and all other `layers` float32.

        Raises:
            ConfigurationError: `quantized` names a layer that is not among `layers`.
        """
        layers, chosen = list(layers), set(quantized)
        if unknown := sorted(chosen.difference(layers)):
            raise ConfigurationError(
                f"no layer named {', '.join(unknown)}; the network has {', '.join(layers)}"
            )
        return cls({layer: precision if layer in chosen else Precision.FLOAT32 for layer in layers})

    @property
    def quantized(self) -> tuple[str, ...]:
        """Names of the layers that run in a low-bit precision."""
        return tuple(layer for layer, precision in self.items() if precision.is_quantized)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that depend on names and precisions, not on their order."""
        return digest(dict(self))

    def require(self, layers: Iterable[str]) -> None:
        """Raise ConfigurationError unless this assignment names exactly `layers`."""
        layers = list(layers)
        missing, unknown = set(layers).difference(self), set(self).difference(layers)
        if missing or unknown:
            raise ConfigurationError(
                f"the assignment lacks {sorted(missing) or 'nothing'} and names {sorted(unknown) or 'nothing'} "
                f"that the network does not have; expected exactly {layers}"
            )

    def __getitem__(self, layer: str) -> Precision:
        return self._precisions[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._precisions)

    def __len__(self) -> int:
        return len(self._precisions)

    def __hash__(self) -> int:
        return hash(frozenset(self._precisions.items()))

    def __repr__(self) -> str:
        return f"Assignment({len(self.quantized)} of {len(self)} layers quantised, {self.digest})"


def digest(value: object) -> str:
    """Hash a JSON value independently of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _precision(layer: str, value: Precision | str) -> Precision:
    try:
        return Precision(value)
    except ValueError:
        known = ", ".join(Precision)
        raise ConfigurationError(f"layer {layer} has precision {value!r}; expected one of {known}") from None
