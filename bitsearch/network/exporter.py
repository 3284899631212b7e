"""Export trained networks: every graph is traced once and kept, then lowered for any weights and assignment."""

from collections.abc import Mapping

import onnx
from torch import nn

import bitsearch
from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import CheckpointError, ExportError
from bitsearch.core.strategy import Configuration
from bitsearch.network import export, quant
from bitsearch.network.spec import Spec
from bitsearch.onnxfile import graph as graph_file

Models = Mapping[str, onnx.ModelProto]
"""Exported graphs by name."""


class Exporter:
    """Traces of one spec, and the files that come from them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def template(self, options: Mapping[str, str], graph: str) -> onnx.ModelProto:
        """Trace a graph, or read the trace made before.

        Raises:
            CheckpointError: the trace that is kept is damaged.
        """
        file = self.spec.work(f"trace-{graph}", options, ".onnx")
        if not file.is_file():
            self.spec.progress(f"tracing {graph}", 0.0)
            template = export.trace(self.spec.task.graphs(self.spec.network(options))[graph])
            write_atomically(file, template.SerializeToString())
        try:
            return graph_file.read(file)
        except ExportError as error:
            raise CheckpointError(f"{error}; remove it, and it is made again") from error

    def export(
        self, network: nn.Module, configuration: Configuration, graph: str, strategy: str | None = None
    ) -> onnx.ModelProto:
        """Lower a trained network to an ONNX file's content."""
        spec, rounding = self.spec, quant.roundings(network)
        metadata = export.Metadata(
            version=bitsearch.__version__,
            model=spec.model,
            dataset=spec.dataset,
            fraction=spec.inventory(configuration.options).fractions(configuration.assignment).fraction,
            config={
                **spec.task.settings,
                "preset": spec.preset,
                "recipe": spec.task.recipes.name,
                "rounding": rounding,
                "options": dict(configuration.options),
            },
            strategy=strategy,
        )
        template = self.template(configuration.options, graph)
        return export.lower(
            template, network.state_dict(), configuration.assignment, metadata, rounding=rounding
        )

    def export_all(
        self, network: nn.Module, configuration: Configuration, strategy: str | None = None
    ) -> Models:
        """Export every graph that measuring needs."""
        return {graph: self.export(network, configuration, graph, strategy) for graph in self.spec.graphs}
