"""Train configurations of a network from float references, which are trained once and kept."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bitsearch.core.seeds import derive
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Recipe
from bitsearch.network import quant
from bitsearch.network.loop import Trained, train
from bitsearch.network.spec import Spec

FINALS, CANDIDATES = 1, 2
"""The streams of random numbers of final trainings and of candidates."""


class Trainer:
    """Float references and trainings of one spec."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._references: dict[tuple[tuple[str, ...], int], Trained] = {}

    def untrained(
        self, options: Mapping[str, str], repetition: int = 0, checkpoint: Path | None = None
    ) -> nn.Module:
        """Build a network to train from scratch, initialised from data unless its training goes on."""
        spec = self.spec
        network = spec.network(options, repetition).to(spec.device)
        if checkpoint is None or not checkpoint.is_file():
            generator = torch.Generator(spec.device).manual_seed(derive(spec.seed, repetition))
            spec.task.prepare(network, spec.data, generator)
        return network

    def reference(self, options: Mapping[str, str], repetition: int = 0) -> Trained:
        """Train the float network from scratch, or take up what was trained before; the network is a copy."""
        key = tuple(options.values()), repetition
        if key not in self._references:
            checkpoint = self.spec.work("reference", options, f"-{repetition}.pt")
            network = self.untrained(options, repetition, checkpoint)
            self._references[key] = self._train(
                network, self.spec.task.recipes.reference, (repetition,), checkpoint
            )
        trained = self._references[key]
        return replace(trained, network=copy.deepcopy(trained.network))

    def train(
        self,
        configuration: Configuration,
        recipe: Recipe,
        repetition: int = 0,
        checkpoint: Path | None = None,
        stream: tuple[int, ...] = (),
    ) -> Trained:
        """Train a configuration from its float reference, or from scratch where the recipe says so.

        Batches and noise follow from `repetition`, in another `stream` from other random numbers.
        """
        recipes = self.spec.task.recipes
        if recipe.scratch:
            network = self.untrained(configuration.options, repetition, checkpoint)
        else:
            own = repetition if recipes.independent else 0
            network = self.reference(configuration.options, own).network
        quant.apply(network, configuration.assignment, rounding=recipes.roundings(configuration.assignment))
        return self._train(network, recipe, (*stream, repetition), checkpoint)

    def candidate(self, configuration: Configuration) -> Trained:
        """Train a configuration as a search does, with random numbers of its own.

        With one seed for all, much of the noise would be common to similar configurations, and no number of trials
        would average it away.
        """
        return self.train(
            configuration,
            self.spec.task.recipes.candidate,
            stream=(CANDIDATES, int(configuration.digest, 16)),
        )

    def finally_train(self, configuration: Configuration, repetitions: int | None = None) -> list[Trained]:
        """Train a configuration by the final recipe, as often as the preset repeats it or only `repetitions` times.

        None of the seeds is one that candidates are trained and chosen with.
        """
        recipes, digest = self.spec.task.recipes, configuration.digest
        return [
            self.train(
                configuration,
                recipes.final,
                index,
                self.spec.work(f"full-{digest}", {}, f"-{index}.pt"),
                (FINALS,),
            )
            for index in range(repetitions or recipes.repetitions)
        ]

    def _train(
        self, network: nn.Module, recipe: Recipe, path: tuple[int, ...], checkpoint: Path | None
    ) -> Trained:
        spec = self.spec
        return train(
            network,
            spec.task,
            spec.data,
            recipe,
            seed=derive(spec.seed, *path),
            device=spec.device,
            checkpoint=checkpoint,
            progress=spec.progress,
        )
