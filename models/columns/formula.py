"""Which columns of a file are used: `label ~ feature + feature`, the name of a data set of the generic taggers."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bitsearch.core.errors import ConfigurationError, one_of


@dataclass(frozen=True)
class Formula:
    """The column that tells signal (1) from background (0), and those that the network reads, in its order."""

    label: str
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.features if self.features.count(name) > 1})
        if not self.label or not self.features or not all(self.features):
            raise ConfigurationError(f"found the columns {str(self)!r}; expected 'label ~ feature + feature'")
        if twice or self.label in self.features:
            raise ConfigurationError(
                f"column {(twice or [self.label])[0]!r} stands twice in {str(self)!r}; expected every column once"
            )

    def __str__(self) -> str:
        return f"{self.label} ~ {' + '.join(self.features)}"

    @classmethod
    def parse(cls, text: str) -> "Formula":
        """Read `label ~ feature + feature`.

        Raises:
            ConfigurationError: the text is none.
        """
        label, mark, features = text.partition("~")
        if not mark:
            raise ConfigurationError(f"found the data set {text!r}; expected 'label ~ feature + feature'")
        return cls(label.strip(), tuple(name.strip() for name in features.split("+")))

    @classmethod
    def choose(cls, label: str, columns: Iterable[str], patterns: Iterable[str] = ("*",)) -> "Formula":
        """Take the columns of a file that match a pattern, the label left out, in the file's order.

        Raises:
            ConfigurationError: there is no such label, or a pattern matches no column.
        """
        known = tuple(columns)
        if label not in known:
            raise ConfigurationError(f"there is no column {label!r}; {one_of(label, known)}")
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = [name for name in known if name != label and fnmatchcase(name, pattern)]
            if not found:
                raise ConfigurationError(f"no column matches {pattern!r}; {one_of(pattern, known)}")
            chosen |= dict.fromkeys(found)
        awkward = [name for name in (label, *chosen) if "+" in name or "~" in name or name != name.strip()]
        if awkward:
            raise ConfigurationError(f"column {awkward[0]!r} holds '+', '~' or outer blanks; rename it")
        return cls(label, tuple(chosen))
