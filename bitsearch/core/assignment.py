"""The one thing that varies: which precision each linear layer has."""

import fnmatch
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

    @classmethod
    def matching(
        cls, patterns: Mapping[str, Precision | str], present: Mapping[str, Precision]
    ) -> "Assignment":
        """Give the layers `present` the precisions of the patterns that match them; the others keep theirs.

        A pattern is a layer's name, that of a module around it, or a glob: `head`, `block.*`.

        Raises:
            ConfigurationError: a pattern matches no layer, or two of them want different precisions of one.
        """
        chosen: dict[str, tuple[str, Precision]] = {}
        for pattern, value in patterns.items():
            precision = _precision(pattern, value)
            found = [layer for layer in present if _matches(layer, pattern)]
            if not found:
                raise ConfigurationError(
                    f"no layer matches {pattern!r}; the network has {', '.join(present) or 'none'}"
                )
            for layer in found:
                other, wanted = chosen.setdefault(layer, (pattern, precision))
                if wanted is not precision:
                    raise ConfigurationError(
                        f"layer {layer} matches {other!r} ({wanted}) and {pattern!r} ({precision}); "
                        "expected patterns that agree"
                    )
        return cls({layer: chosen[layer][1] if layer in chosen else old for layer, old in present.items()})

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


def _matches(layer: str, pattern: str) -> bool:
    return layer.startswith(f"{pattern}.") or fnmatch.fnmatchcase(layer, pattern)


def _precision(layer: str, value: Precision | str) -> Precision:
    try:
        return Precision(value)
    except ValueError:
        known = ", ".join(Precision)
        raise ConfigurationError(f"layer {layer} has precision {value!r}; expected one of {known}") from None
