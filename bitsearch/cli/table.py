"""The table of verbs: what is typed, one line of help, the extra that it needs, its options and its function."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from bitsearch.cli import (
    bench,
    catalogue,
    compare,
    completion,
    data,
    diff,
    inspect,
    networks,
    new,
    ops,
    physics,
    runs,
    search,
    ternarize,
    verify,
    watch,
)

GROUPS = {"data": "generate a data file, or validate one in the public format"}
"""First words of verbs of two words."""


@dataclass(frozen=True)
class Verb:
    """A row: `text` says more than `help`, with an example and how long it takes; `extra` "" is the bare install."""

    name: str
    help: str
    extra: str
    text: str
    options: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace], None]


VERBS = (
    Verb(
        "run",
        "search mixed precisions and report, or continue with the same --out",
        "search",
        runs.RUN,
        runs.run_options,
        runs.run,
    ),
    Verb(
        "report",
        "build the report again from what is on disk",
        "files",
        runs.REPORT,
        runs.folder_options,
        runs.report,
    ),
    Verb(
        "watch",
        "the page of a run while it goes on, at an address of this machine",
        "files",
        watch.WATCH,
        watch.watch_options,
        watch.watch,
    ),
    Verb(
        "compare",
        "several runs on one page: seeds, recipes, samplers, machines",
        "files",
        compare.COMPARE,
        compare.compare_options,
        compare.compare,
    ),
    Verb("status", "how a run stands", "", runs.STATUS, runs.folder_options, runs.status),
    Verb(
        "new",
        "write a starting pair of files for a network of your own",
        "",
        new.NEW,
        new.new_options,
        new.new,
    ),
    Verb(
        "list",
        "models, datasets, strategies, presets, kernels",
        "",
        catalogue.LIST,
        catalogue.list_options,
        catalogue.list_all,
    ),
    Verb(
        "strategies",
        "the handmade strategies with parameter counts and quantised fractions",
        "search",
        catalogue.STRATEGIES,
        catalogue.model_options,
        catalogue.strategies,
    ),
    Verb(
        "layers",
        "every searchable layer: shape, parameters, share, group",
        "search",
        catalogue.LAYERS,
        catalogue.model_options,
        catalogue.layers,
    ),
    Verb(
        "data make",
        "generate a file; it says of itself that it is generated",
        "data",
        data.MAKE,
        data.make_options,
        data.make,
    ),
    Verb(
        "data check",
        "validate a file and say what is in it",
        "data",
        data.CHECK,
        data.check_options,
        data.check,
    ),
    Verb(
        "train",
        "train one configuration to a checkpoint",
        "search",
        networks.TRAIN,
        networks.train_options,
        networks.train,
    ),
    Verb(
        "export",
        "turn a checkpoint, ours or the original authors', into ONNX",
        "search",
        networks.EXPORT,
        networks.export_options,
        networks.export,
    ),
    Verb(
        "ternarize",
        "post-export: turn linear layers of any ONNX file into TernaryMatMul",
        "",
        ternarize.TERNARIZE,
        ternarize.ternarize_options,
        ternarize.ternarize,
    ),
    Verb(
        "search",
        "search precisions for the layers of any ONNX file, nothing trained",
        "files",
        search.SEARCH,
        search.search_options,
        search.search,
    ),
    Verb("inspect", "what is in an ONNX file", "", inspect.INSPECT, inspect.inspect_options, inspect.inspect),
    Verb(
        "verify",
        "kernel against function body against numpy reference",
        "",
        verify.VERIFY,
        verify.verify_options,
        verify.verify,
    ),
    Verb(
        "bench",
        "latency, throughput, size, memory, side by side",
        "",
        bench.BENCH,
        bench.bench_options,
        bench.bench,
    ),
    Verb(
        "diff",
        "what changed in a graph, how far outputs differ",
        "",
        diff.DIFF,
        diff.diff_options,
        diff.diff,
    ),
    Verb(
        "evaluate",
        "the paper's metrics for models or for generated-sample files",
        "search",
        physics.EVALUATE,
        physics.evaluate_options,
        physics.evaluate,
    ),
    Verb(
        "suggest",
        "an assignment from sensitivities alone, without training",
        "search",
        physics.SUGGEST,
        physics.suggest_options,
        physics.suggest,
    ),
    Verb(
        "completion",
        "a script that completes commands in bash or zsh",
        "completion",
        completion.COMPLETION,
        completion.completion_options,
        completion.completion,
    ),
    Verb("ops", "where the operator library lies", "", ops.OPS, ops.ops_options, ops.ops),
)
