"""What is trained and measured: model options with an assignment, named when they come from the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bitsearch.core.assignment import Assignment, digest


@dataclass(frozen=True, eq=False)
class Configuration:
    """Model options (for example CaloINN's permutation scheme) and the precision of every linear layer."""

    assignment: Assignment
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def digest(self) -> str:
        """Identify the configuration; equal exactly when options and assignment are."""
        return digest({"options": dict(self.options), "assignment": dict(self.assignment)})

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self.digest == other.digest

    def __reduce__(self) -> tuple[object, ...]:
        return Configuration, (self.assignment, dict(self.options))


@dataclass(frozen=True)
class Strategy:
    """A handmade configuration under the name the paper prints."""

    name: str
    configuration: Configuration
    description: str
