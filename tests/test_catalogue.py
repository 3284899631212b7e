"""Models found by name or path, and the published parameter counts to the last digit."""

from pathlib import Path

import pytest
import torch

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.rounding import Rounding
from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.caloinn.coupling import CouplingBlock
from bitsearch.network import catalogue, quant

PHOTON, PION, DS2 = 18_821_350, 26_592_624, 270_999_370
# Section 8 of the specification: total, quantised weights, quantised biases, layers, printed percentages A and D.
TABLE_8 = {
    ("ds1-photon", "default"): (PHOTON, 0, 0, 0, 0.0, 0.0),
    ("ds1-photon", "exchange-permutation"): (18_819_112, 0, 0, 0, 0.0, 0.0),
    ("ds1-photon", "nncentral"): (PHOTON, 1_572_864, 6_144, 24, 8.3895, 8.4017),
    ("ds1-photon", "blockcentral"): (18_819_112, 12_480_512, 49_296, 32, 66.5802, 66.6667),
    ("ds1-photon", "all"): (PHOTON, 18_720_768, 73_944, 48, 99.8585, 100.0),
    ("ds1-pion", "default"): (PION, 0, 0, 0, 0.0, 0.0),
    ("ds1-pion", "exchange-permutation"): (26_589_384, 0, 0, 0, 0.0, 0.0),
    ("ds1-pion", "nncentral"): (PION, 1_572_864, 6_144, 24, 5.9378, 5.9445),
    ("ds1-pion", "blockcentral"): (26_589_384, 17_639_424, 68_784, 32, 66.5988, 66.6667),
    ("ds1-pion", "all"): (PION, 26_459_136, 103_176, 48, 99.8860, 100.0),
    ("ds2", "default"): (DS2, 0, 0, 0, 0.0, 0.0),
    ("ds2", "exchange-permutation"): (270_960_220, 0, 0, 0, 0.0, 0.0),
    ("ds2", "nncentral"): (DS2, 917_504, 3_584, 14, 0.3399, 0.3400),
    ("ds2", "blockcentral"): (270_960_220, 192_727_040, 722_760, 30, 71.3942, 71.4286),
    ("ds2", "all"): (DS2, 269_817_856, 1_011_864, 42, 99.9374, 100.0),
}  # fmt: skip
ENTRIES = [catalogue.find(name) for name in catalogue.names()]
CASES = [
    (entry, dataset, preset) for entry in ENTRIES for dataset in entry.datasets for preset in entry.presets
]


@pytest.mark.parametrize(("dataset", "name"), TABLE_8)
def test_published_counts(dataset: str, name: str) -> None:
    total, weights, biases, layers, percent, percent_of_weights = TABLE_8[dataset, name]
    entry = catalogue.find("caloinn")
    task = entry.task(dataset, "paper")
    configuration = entry.strategy(task, name).configuration
    found = catalogue.inventory(task, configuration.options)
    fractions = found.fractions(configuration.assignment)
    quantized = [layer for layer in found.layers if configuration.assignment[layer.name].is_quantized]
    assert len(quantized) == layers
    assert sum(layer.weights for layer in quantized) == weights
    assert sum(layer.parameters - layer.weights for layer in quantized) == biases
    assert (fractions.quantized_parameters, fractions.total_parameters) == (weights + biases, total)
    assert 100 * fractions.fraction == pytest.approx(percent, abs=5e-5)
    assert 100 * fractions.weight_fraction == pytest.approx(percent_of_weights, abs=5e-5)
    assert fractions.executed_fraction == fractions.fraction


@pytest.mark.parametrize(
    ("dataset", "blocks", "shapes"),
    [
        ("ds1-photon", 12, [(256, 188), (256, 256), (256, 256), (5394, 256)]),
        ("ds1-pion", 12, [(256, 271), (256, 256), (256, 256), (7830, 256)]),
        ("ds2", 14, [(256, 3264), (256, 256), (71764, 256)]),
    ],
)
def test_published_layers(dataset: str, blocks: int, shapes: list[tuple[int, int]]) -> None:
    entry = catalogue.find("caloinn")
    found = catalogue.inventory(entry.task(dataset, "paper"), {"permutation": "random"})
    assert [(layer.out_features, layer.in_features) for layer in found.layers] == shapes * blocks
    assert all(layer.bias and layer.executed for layer in found.layers)


@pytest.mark.parametrize("dataset", ["ds1-photon", "ds1-pion", "ds2"])
def test_published_settings(dataset: str) -> None:
    task = catalogue.find("caloinn").task(dataset, "paper")
    architecture, recipe = task.settings["architecture"], task.recipes.reference
    electron = dataset == "ds2"
    expected = {
        "spline": "cubic" if electron else "rational-quadratic",
        "bins": 10,
        "bound": 15.0 if electron else 18.0,
        "normalization": not electron,
        "activation": "leaky-relu" if electron else "silu",
        "noise": 1e-6 if electron else 5e-6,
        "out_of_bounds": "event",
        "hidden": 256,
    }
    assert {name: architecture[name] for name in expected} == expected
    assert (recipe.batch_size, recipe.max_learning_rate, recipe.weight_decay, recipe.epsilon) == (
        512,
        1e-4,
        0.01,
        1e-10,
    )
    with torch.device("meta"):
        network = task.network({"permutation": "random"}, seed=0)
    block = network.get_submodule("blocks.1")
    assert isinstance(block, CouplingBlock)
    sizes = {"ds1-photon": (187, 186), "ds1-pion": (270, 270), "ds2": (3263, 3262)}
    assert (block.passive, block.transformed) == sizes[dataset]


@pytest.mark.parametrize(
    ("entry", "dataset", "preset"), CASES, ids=lambda value: getattr(value, "name", value)
)
def test_every_catalogued_model_fits_its_search_space(
    entry: catalogue.Entry, dataset: str, preset: str
) -> None:
    task = entry.task(dataset, preset)
    assert (task.model, task.dataset, task.preset) == (entry.name, dataset, preset)
    assert task.objective in {metric.name for metric in task.metrics}
    space = entry.space(task)
    grouped = [name for group in space.groups for name in group.layers]
    assert sorted(grouped) == sorted(space.layers)
    assert len({group.name for group in space.groups}) == len(space.groups)
    assert len({item.name for item in space.strategies}) == len(space.strategies)
    first = space.strategies[0].configuration
    assert not first.assignment.quantized
    assert dict(first.options) == entry.options_of_reference(task.preset)
    for strategy in space.strategies:
        found = catalogue.inventory(task, strategy.configuration.options)
        assert found.names == space.layers
        strategy.configuration.assignment.require(found.names)
        assert entry.strategy(task, strategy.name).configuration == strategy.configuration
        for name, choice in strategy.configuration.options.items():
            assert choice in entry.options(task.preset)[name]
    assert {item.strategy for item in entry.published(dataset)} <= {item.name for item in space.strategies}
    assert {item.metric for item in entry.published(dataset)} <= {metric.name for metric in task.metrics}


def test_table_3_as_printed() -> None:
    entry = catalogue.find("caloinn")
    found = {(item.strategy, item.metric): (item.value, item.std) for item in entry.published("ds1-photon")}
    assert len(found) == 10
    assert found["default", "auc_low"] == (0.633, 0.003)
    assert found["all", "auc_high"] == (0.828, 0.002)
    ds2 = {(item.strategy, item.metric): (item.value, item.std) for item in entry.published("ds2")}
    assert ds2["blockcentral", "auc_low"] == (0.950, 0.002)
    assert ds2["all", "auc_high"] == (0.998, 0.0)
    assert "Table 3" in entry.published_source


def test_names_and_defaults() -> None:
    assert "caloinn" in catalogue.names()
    entry = catalogue.find("caloinn")
    assert entry.datasets[0] == "ds1-photon"
    task = entry.task()
    assert (task.dataset, task.preset) == ("ds1-photon", "laptop")
    assert entry.options("laptop") == {"permutation": ("random", "exchange")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "ds9"}, "caloinn has no dataset 'ds9'; expected one of ds1-photon, ds1-pion, ds2"),
        ({"preset": "huge"}, "caloinn has no preset 'huge'; expected one of smoke, laptop, paper"),
    ],
)
def test_unknown_datasets_and_presets(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        catalogue.find("caloinn").task(**arguments)


def test_unknown_models_and_strategies() -> None:
    with pytest.raises(ConfigurationError, match=r"no model 'calo'; expected one of .*caloinn"):
        catalogue.find("calo")
    entry = catalogue.find("caloinn")
    with pytest.raises(ConfigurationError, match="no strategy 'most'; expected one of default, "):
        entry.strategy(entry.task(preset="smoke"), "most")


def test_models_of_a_user_lie_beside_their_search_space(tmp_path: Path) -> None:
    model, space = tmp_path / "mine.py", tmp_path / "mine_space.py"
    model.write_text(
        "import dataclasses\nfrom bitsearch.models import caloinn\nDATASETS, PRESETS = ('ds2',), ('smoke',)\n"
        "def task(dataset, preset):\n"
        "    return dataclasses.replace(caloinn.task(dataset, preset), model='mine')\n"
    )
    alone = catalogue.find(str(model))
    assert alone.published("ds2") == ()
    space_alone = alone.space(alone.task("ds2", "smoke"))
    assert space_alone.strategies[0].name == "float32"
    assert [group.layers for group in space_alone.groups] == [(name,) for name in space_alone.layers]
    space.write_text("from bitsearch.search_spaces.caloinn import *\n")
    entry = catalogue.find(str(model))
    assert (entry.name, entry.datasets) == ("mine", ("ds2",))
    task = entry.task(preset="smoke")
    assert task.model == "mine"
    assert [item.name for item in entry.space(task).strategies][-1] == "all"
    with pytest.raises(ConfigurationError, match="there is no file"):
        catalogue.find(str(tmp_path / "other.py"))


def test_executed_fraction_leaves_idle_layers_out() -> None:
    entry = catalogue.find("caloinn")
    task = entry.task(preset="smoke")
    network = task.network(entry.options_of_reference(task.preset), seed=0)
    everything = quant.inventory(network)
    network.never_run = ("blocks.0.subnet",)  # type: ignore[assignment]
    found = quant.inventory(network)
    idle = sum(p.numel() for p in network.get_submodule("blocks.0.subnet").parameters())
    assert found.total_parameters == everything.total_parameters == found.executed_parameters + idle
    assert [layer.name for layer in found.layers if not layer.executed] == [
        name for name in found.names if name.startswith("blocks.0.subnet.")
    ]
    assignment = entry.strategy(task, "all").configuration.assignment
    both = everything.fractions(assignment), found.fractions(assignment)
    assert both[0].fraction == both[1].fraction
    assert both[0].executed_fraction != both[1].executed_fraction


@pytest.mark.parametrize(
    ("preset", "recipe", "expected"),
    [
        ("smoke", None, "improved"),
        ("smoke", "paper", "paper"),
        ("paper", None, "paper"),
        ("paper", "improved", "improved"),
    ],
)
def test_below_the_papers_preset_the_recipe_is_the_improved_one(
    preset: str, recipe: str | None, expected: str
) -> None:
    task = catalogue.find("caloinn").task(None, preset, recipe)
    assert task.recipes.name == task.settings["recipes"]["name"] == expected
    rounding = task.recipes.roundings(["blocks.0.subnet.layers.0"])
    kind = Rounding.OPTIMAL if expected == "improved" else Rounding.PAPER
    assert rounding == {"blocks.0.subnet.layers.0": kind}


def test_the_first_pattern_that_matches_tells_how_a_layer_rounds() -> None:
    recipe = Recipe(1, 1, 1e-3, 0.0, 1e-8)
    recipes = Recipes(recipe, recipe, recipe, 1, 1).improved(
        ("energy.*", Rounding.OPTIMAL), ("*.final", Rounding.MEAN), quantized_rate=3.0
    )
    assert recipes.roundings(["energy.final", "shape.final", "shape.in"]) == {
        "energy.final": Rounding.OPTIMAL,
        "shape.final": Rounding.MEAN,
        "shape.in": Rounding.PAPER,
    }
    assert (recipes.reference, recipes.candidate.quantized_rate, recipes.final.quantized_rate) == (
        recipe,
        3.0,
        3.0,
    )


def test_models_without_an_improved_recipe_say_so() -> None:
    entry = catalogue.find(str(Path(__file__).parent / "user_model" / "mine.py"))
    assert entry.task(None, entry.presets[0]).recipes.name == "paper"
    with pytest.raises(ConfigurationError, match="has no recipe 'improved'"):
        entry.task(None, entry.presets[0], "improved")


def test_all_that_a_users_task_lacks_is_said_at_once(tmp_path: Path) -> None:
    """Six members are required beside the defaults of `TaskBase`; a bare class lacks them all."""
    model = tmp_path / "mine.py"
    model.write_text("PRESETS = ('smoke',)\n")
    with pytest.raises(
        ConfigurationError, match=r"lacks DATASETS: tuple\[str, ...\], task\(dataset, preset\); define them"
    ):
        catalogue.find(str(model))
    model.write_text(
        "from bitsearch.models.base import TaskBase\nDATASETS, PRESETS = ('any',), ('smoke',)\n"
        "class Mine(TaskBase):\n    metrics = ()\ntask = Mine\n"
    )
    with pytest.raises(ConfigurationError, match="mine has no metrics; expected one at least"):
        catalogue.find(str(model)).task("any", "smoke")
    model.write_text(model.read_text().replace("    metrics = ()\n", "    pass\n"))
    with pytest.raises(ConfigurationError) as caught:
        catalogue.find(str(model)).task("any", "smoke")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(
        "the task of mine lacks metrics: tuple[Metric, ...], objective: str, network(options, seed), "
        "load(paths, seed, progress), loss(network, data, indices, generator), inputs(batch, seed), "
        "measure(sessions, data); define them, or "
    )
    with pytest.raises(ConfigurationError, match="there is no file"):
        catalogue.find(str(tmp_path / "theirs.py"))
