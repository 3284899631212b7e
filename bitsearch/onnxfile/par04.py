"""Dress a generator of showers for Geant4's example Par04, whose mesh can be that of CaloChallenge's ds2.

Par04 feeds one tensor to its model and reads one, by either of two conventions. Its VAE's: n numbers from a normal
distribution, E / 1024 GeV, the polar angle over 90 degrees and two numbers for the detector; it multiplies what comes
out by E. Its CaloDiT-2's: E in GeV, two angles and five numbers for the detector; what comes out is in GeV, and normal
numbers are drawn in the graph. Cells come radius slowest, then azimuth, then depth. Electrons of ds2 enter a single
detector at a right angle, so that angles and detector are not looked at.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.core.errors import ExportError

LAYERS, ANGLES, RADII = 45, 16, 9
VOXELS = LAYERS * ANGLES * RADII
"""In ds2 the layer is slowest, the radius fastest."""
LARGEST_MEV = 1_024_000.0
MEV_PER_GEV = 1000.0
ENERGY, SHOWERS = "incident_energy", "showers"
INPUT, OUTPUT = "conditions", "energies"
PREFIX = "par04."


class Interface(StrEnum):
    """Which of Par04's conventions a file follows: the VAE's, since Geant4 11.0, or CaloDiT-2's, since 11.4."""

    VAE = "par04"
    CALODIT = "par04-calodit"


CONDITIONS = {Interface.VAE: 4, Interface.CALODIT: 8}


def par04(model: onnx.ModelProto, interface: Interface | str = Interface.VAE) -> onnx.ModelProto:
    """Give a generator one input `(batch, n)` and one output `(batch, 6480)`, which Par04 reads.

    Raises:
        ExportError: the file is no generator of showers on Par04's mesh.
    """
    interface = Interface(interface)
    latent = _latent(model)
    dressed = onnx.ModelProto()
    dressed.CopyFrom(model)
    graph = dressed.graph
    nodes = [*_front(graph, latent, interface), *model.graph.node, *_back(graph, interface)]
    width = CONDITIONS[interface] + (sum(latent.values()) if interface is Interface.VAE else 0)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, width]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, VOXELS]))
    graph.doc_string = (
        "what Geant4's example Par04 asks its model to voxel energies by radius, azimuth and layer"
    )
    return dressed


def macro(dressed: onnx.ModelProto, interface: Interface | str, path: Path) -> str:
    """Write the macro with which Par04 simulates electrons by the dressed generator at `path`."""
    conditions = CONDITIONS[Interface(interface)]
    width = dressed.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    kind = (
        f"/Par04/inference/setSizeLatentVector {width - conditions}\n"
        f"/Par04/inference/setSizeConditionVector {conditions}"
        if Interface(interface) is Interface.VAE
        else "/Par04/inference/setModelType CaloDiT-2"
    )
    return MACRO.format(
        kind=kind, path=path, mesh=CELLS.format(folder="mesh"), inference=CELLS.format(folder="inference")
    )


CELLS = f"""\
/Par04/{{folder}}/setSizeOfRhoCells 4.65 mm
/Par04/{{folder}}/setSizeOfZCells 3.4 mm
/Par04/{{folder}}/setNbOfRhoCells {RADII}
/Par04/{{folder}}/setNbOfPhiCells {ANGLES}
/Par04/{{folder}}/setNbOfZCells {LAYERS}"""
MACRO = """\
# Detector and mesh of CaloChallenge's ds2
/Par04/detector/setDetectorInnerRadius 80 cm
/Par04/detector/setDetectorLength 2 m
/Par04/detector/setNbOfLayers 90
/Par04/detector/setAbsorber 0 G4_W 1.4 mm true
/Par04/detector/setAbsorber 1 G4_Si 0.3 mm true
{mesh}
/run/initialize
/gun/energy 10 GeV
/gun/position 0 0 0
/gun/direction 0 1 0
# Generator
{kind}
/Par04/inference/setModelPathName {path}
/Par04/inference/setProfileFlag 0
/Par04/inference/setOptimizationFlag 0
/Par04/inference/setInferenceLibrary ONNX
{inference}
# Turns the mesh to each particle, so it comes first
/param/ActivateModel defineMesh
/param/ActivateModel inferenceModel
/run/beamOn 100
"""


def _latent(model: onnx.ModelProto) -> dict[str, int]:
    """Give the sizes of a generator's normal inputs.

    Raises:
        ExportError: inputs or outputs are others than a generator's on the mesh.
    """
    inputs = {value.name: _width(value) for value in model.graph.input}
    outputs = {value.name: _width(value) for value in model.graph.output}
    if list(outputs) != [SHOWERS] or inputs.pop(ENERGY, None) != 1 or not all(inputs.values()):
        raise ExportError(
            f"found the inputs {', '.join(value.name for value in model.graph.input)} and outputs "
            f"{', '.join(outputs)}; Par04 expects a generator from {ENERGY} (batch, 1) and normal numbers to {SHOWERS}"
        )
    if outputs[SHOWERS] != VOXELS:
        raise ExportError(
            f"found showers of {outputs[SHOWERS] or 'unknown'} voxels; Par04's mesh takes the {VOXELS} of ds2, "
            f"{LAYERS} layers of {ANGLES} angles and {RADII} radii"
        )
    return inputs


def _width(value: onnx.ValueInfoProto) -> int:
    """Give the size of the second axis of a float matrix; 0 where a value is something else."""
    tensor = value.type.tensor_type
    sizes = tensor.shape.dim
    return sizes[1].dim_value if tensor.elem_type == TensorProto.FLOAT and len(sizes) == 2 else 0


def _front(graph: onnx.GraphProto, latent: dict[str, int], interface: Interface) -> Iterator[onnx.NodeProto]:
    """Cut Par04's tensor into the generator's inputs, under the generator's names."""
    if interface is Interface.VAE:
        start = 0
        for name, size in latent.items():
            yield _slice(graph, name, start, start + size)
            start += size
        yield _slice(graph, f"{PREFIX}fraction", start, start + 1)
        largest = _constant(graph, "largest_mev", np.float32(LARGEST_MEV))
        yield helper.make_node("Mul", [f"{PREFIX}fraction", largest], [ENERGY], f"{PREFIX}energy")
        return
    yield _slice(graph, f"{PREFIX}gev", 0, 1)
    mev_per_gev = _constant(graph, "mev_per_gev", np.float32(MEV_PER_GEV))
    yield helper.make_node("Mul", [f"{PREFIX}gev", mev_per_gev], [ENERGY], f"{PREFIX}energy")
    for name, size in latent.items():
        row, wide = _constant(graph, f"{name}.row", np.array([1, size])), f"{PREFIX}{name}.like"
        yield helper.make_node("Expand", [ENERGY, row], [wide], wide)
        yield helper.make_node("RandomNormalLike", [wide], [name], f"{PREFIX}{name}")


def _back(graph: onnx.GraphProto, interface: Interface) -> Iterator[onnx.NodeProto]:
    """Put the showers into Par04's order and unit."""
    grid = _constant(graph, "grid", np.array([-1, LAYERS, ANGLES, RADII]))
    row = _constant(graph, "row", np.array([-1, VOXELS]))
    unit = ENERGY if interface is Interface.VAE else f"{PREFIX}mev_per_gev"
    names = [f"{PREFIX}{name}" for name in ("layers", "radii", "cells")]
    yield helper.make_node("Reshape", [SHOWERS, grid], [names[0]], names[0])
    yield helper.make_node("Transpose", [names[0]], [names[1]], names[1], perm=[0, 3, 2, 1])
    yield helper.make_node("Reshape", [names[1], row], [names[2]], names[2])
    yield helper.make_node("Div", [names[2], unit], [OUTPUT], f"{PREFIX}{OUTPUT}")


def _slice(graph: onnx.GraphProto, name: str, start: int, stop: int) -> onnx.NodeProto:
    bounds = [
        _constant(graph, f"{name}.{end}", np.array([value]))
        for end, value in (("start", start), ("stop", stop), ("axis", 1))
    ]
    return helper.make_node("Slice", [INPUT, *bounds], [name], f"{PREFIX}{name}.slice")


def _constant(graph: onnx.GraphProto, name: str, value: NDArray[np.int64] | np.float32) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{PREFIX}{name}"))
    return f"{PREFIX}{name}"
