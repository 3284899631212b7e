"""Find models by name: a file in `models/` and one of the same name in `search_spaces/`, or a user's own paths."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from bitsearch import models, search_spaces
from bitsearch.core.errors import BitsearchError, ConfigurationError, one_of
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group, Inventory, SearchSpace, group, handmade
from bitsearch.core.strategy import Strategy
from bitsearch.core.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn


@dataclass(frozen=True)
class Entry:
    """A model with its search space; the model, which imports torch, is loaded when it is first used."""

    name: str
    load: Callable[[], ModuleType | SimpleNamespace]
    search_space: ModuleType | SimpleNamespace
    users: bool = False

    @cached_property
    def model(self) -> ModuleType | SimpleNamespace:
        """The module that holds the network."""
        return self.load()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Data sets that the model can be built for, the default first."""
        return self._names("DATASETS")

    @property
    def presets(self) -> tuple[str, ...]:
        """Presets, smallest first."""
        return self._names("PRESETS")

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the handmade strategies, which `space` builds."""
        return self._names("STRATEGIES")

    def _names(self, constant: str) -> tuple[str, ...]:
        """Read a constant of the search space, which needs no torch; a user's model may hold it, and comes first."""
        where = self.model if self.users and hasattr(self.model, constant) else self.search_space
        return cast(tuple[str, ...], getattr(where, constant))

    @property
    def published_source(self) -> str:
        """Where the published results were printed."""
        return str(getattr(self.search_space, "PUBLISHED_SOURCE", ""))

    @property
    def recipes(self) -> tuple[str, ...]:
        """Ways to train: the paper's, and `improved` where the model has an `improved(task)`."""
        names = getattr(self.model, "RECIPES", None)
        if isinstance(names, tuple):
            return cast(tuple[str, ...], names)
        return ("paper", "improved") if hasattr(self.model, "improved") else ("paper",)

    def task(self, dataset: str | None = None, preset: str = "laptop", recipe: str | None = None) -> Task:
        """Set up the model; below the preset `paper` the recipe is the improved one, where there is one.

        Raises:
            ConfigurationError: the model has no such data set, preset or recipe, or its task lacks members, all
                of which are named.
        """
        dataset = dataset or self.datasets[0]
        recipe = recipe or self.recipes[0 if preset == "paper" else -1]
        for kind, value, known in (
            ("dataset", dataset, self.datasets),
            ("preset", preset, self.presets),
            ("recipe", recipe, self.recipes),
        ):
            if kind == "dataset" and value not in known and hasattr(self.model, "accepts"):
                self.model.accepts(value)
            elif value not in known:
                raise ConfigurationError(f"{self.name} has no {kind} {value!r}; {one_of(value, known)}")
        task = self.model.task(dataset, preset)
        require(
            f"the task of {self.name}", (task,), _members(), "derive it from bitsearch.models.base.TaskBase"
        )
        return cast(Task, self.model.improved(task) if recipe == "improved" else task)

    def published(self, dataset: str) -> tuple[PublishedResult, ...]:
        """Give the paper's numbers; none for a network without a paper."""
        return cast(tuple[PublishedResult, ...], self._optional("published", (), dataset))

    def published_fractions(self, dataset: str) -> tuple[PublishedFraction, ...]:
        """Give the quantised shares that the paper prints."""
        return cast(tuple[PublishedFraction, ...], self._optional("published_fractions", (), dataset))

    def space(self, task: Task) -> SearchSpace:
        """Build the search space for the layers that the network really has."""
        layers = inventory(task, self.options_of_reference(task.preset)).names
        groups = cast(Sequence[Group], self._optional("groups", group(layers, {}), layers))
        everything = handmade(layers, {"ternary": {"*": "ternary"}})
        strategies = cast(Sequence[Strategy], self._optional("strategies", everything, layers, task.preset))
        return SearchSpace(layers, tuple(groups), self.options(task.preset), tuple(strategies))

    def strategy(self, task: Task, name: str) -> Strategy:
        """Find one of the handmade strategies.

        Raises:
            ConfigurationError: there is none of this name.
        """
        known = {strategy.name: strategy for strategy in self.space(task).strategies}
        if name not in known:
            raise ConfigurationError(f"{self.name} has no strategy {name!r}; {one_of(name, known)}")
        return known[name]

    def options(self, preset: str) -> Mapping[str, tuple[str, ...]]:
        """List the model options that the search may choose, each with its choices."""
        return cast(Mapping[str, tuple[str, ...]], self._optional("options", {}, preset))

    def _optional(self, name: str, otherwise: object, *arguments: object) -> object:
        """Ask the search space, where it has this function."""
        function = getattr(self.search_space, name, None)
        return otherwise if function is None else function(*arguments)

    def options_of_reference(self, preset: str) -> dict[str, str]:
        """Give the choices of the float reference: the first of each option."""
        return {name: choices[0] for name, choices in self.options(preset).items()}


def _members() -> dict[str, str]:
    """Describe the members of a task: attributes with their types, methods with their arguments."""
    described = {name: f"{name}: {kind}" for name, kind in Task.__annotations__.items()}
    for name, member in vars(Task).items():
        if isinstance(member, property):
            described[name] = f"{name}: {member.fget.__annotations__['return']}"
        elif inspect.isfunction(member) and not name.startswith("_"):
            described[name] = f"{name}({', '.join([*inspect.signature(member).parameters][1:])})"
    return described


def require(what: str, found: Sequence[object], members: Mapping[str, str], otherwise: str) -> None:
    """Check that each member, by name with its description, is in one of `found`.

    Raises:
        ConfigurationError: describing all that are not.
    """
    missing = [text for name, text in members.items() if not any(hasattr(item, name) for item in found)]
    if missing:
        raise ConfigurationError(f"{what} lacks {', '.join(missing)}; define them, or {otherwise}")


def network(task: Task, options: Mapping[str, str], seed: int) -> "nn.Module":
    """Build the float network with 1x1 convolutions and attentions as linear layers (see `convert`)."""
    from bitsearch.network.convert import convert

    return convert(task.network(options, seed))


def inventory(task: Task, options: Mapping[str, str]) -> Inventory:
    """Count the network's layers without giving it memory."""
    import torch

    from bitsearch.network import quant

    with torch.device("meta"):
        return quant.inventory(network(task, options, seed=0))


def names() -> tuple[str, ...]:
    """List the models that come with the package."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(search_spaces.__path__)))


@contextmanager
def offering(entry: Entry) -> Iterator[None]:
    """Let `find` give a network of this process by its name.

    Raises:
        ConfigurationError: a model of the package has this name.
    """
    if entry.name in names() or entry.name.endswith(".py"):
        raise ConfigurationError(f"{entry.name!r} is the name of another model; choose one with `name`")
    _own[entry.name] = entry
    try:
        yield
    finally:
        del _own[entry.name]


_own: dict[str, Entry] = {}


def find(name: str) -> Entry:
    """Find a model by name, or by the path of a file whose search space lies beside it as `<name>_space.py`.

    Raises:
        ConfigurationError: there is no such model.
    """
    if name in _own:
        return _own[name]
    return _from_path(Path(name)) if name.endswith(".py") else built_in(name, " or the path of a .py file")


def built_in(name: str, otherwise: str = "") -> Entry:
    """Find a model that comes with the package: names that stand in files never choose code.

    Raises:
        ConfigurationError: there is no such model.
    """
    if name not in names():
        raise ConfigurationError(f"there is no model {name!r}; {one_of(name, names(), otherwise)}")
    return Entry(
        name,
        partial(importlib.import_module, f"{models.__name__}.{name}"),
        importlib.import_module(f"{search_spaces.__name__}.{name}"),
    )


def contents(name: str) -> Mapping[str, str]:
    """Give the SHA-256 of a user's model file and search space, by file name; nothing for a model of the package."""
    if not name.endswith(".py"):
        return {}
    path = Path(name)
    files = path, path.with_name(f"{path.stem}_space.py")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def inputs_of(metadata: Mapping[str, str], batch: int, seed: int) -> "dict[str, NDArray[Any]] | None":
    """Draw realistic inputs of the model that a file's metadata name; None where that is none of ours."""
    try:
        config = json.loads(metadata.get("bitsearch.config", "{}"))
        entry = built_in(metadata.get("bitsearch.model", ""))
        task = entry.task(metadata.get("bitsearch.dataset"), config.get("preset", entry.presets[0]))
        return dict(task.inputs(batch, seed))
    except (ValueError, AttributeError, BitsearchError):
        return None


def _from_path(path: Path) -> Entry:
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}; expected a model's Python file")
    space = path.with_name(f"{path.stem}_space.py")
    model = _load(path)
    beside = _load(space) if space.is_file() else model
    members = {
        "DATASETS": "DATASETS: tuple[str, ...]",
        "PRESETS": "PRESETS: tuple[str, ...]",
        "task": "task(dataset, preset)",
    }
    require(str(path), (model, beside), members, "look at what `bitsearch new NAME` writes")
    return Entry(path.stem, lambda: model, beside, users=True)


def _load(path: Path) -> ModuleType:
    name = f"bitsearch_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
