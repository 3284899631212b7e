"""Old and other runtimes, each in an environment of its own: `make test-hosts` (they are installed at first use)."""

from typing import Any

import numpy as np
import pytest
from other_hosts import FOLDER, hosts, installed

pytestmark = [pytest.mark.hosts, pytest.mark.slow]
SAME_BITS = (
    "caloinn",
    "smeftnet",
)  # the others hold float operators whose order of sums changed over versions
TOLERANCE = 1e-3  # of the largest number: an activation on a rounding edge moves by one step, one of 254


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in sorted(hosts.NETWORKS)],
)
def case(request: pytest.FixtureRequest) -> Any:
    return hosts.case(request.param, FOLDER)


def check(host: Any, case: Any, file: str) -> None:
    installed(host)
    found, _ = host.run(case.files[file], case.feed, FOLDER)
    scale = np.abs(case.expected).max()
    np.testing.assert_allclose(found, case.expected, atol=TOLERANCE * scale)
    if (host.library or host.preload) and case.name in SAME_BITS:
        np.testing.assert_array_equal(found, case.expected)


FUNCTIONS = [host for host in hosts.HOSTS if host.client != hosts.OPENVINO]
BARE = [host for host in hosts.HOSTS if not (host.library or host.preload or host.client == hosts.NODE)]


@pytest.mark.parametrize("host", FUNCTIONS, ids=lambda host: host.name)
def test_exported_files_agree(host: Any, case: Any) -> None:
    if host.name == "onnx.reference" and case.name == "pdat":
        pytest.skip("onnx's evaluator fails in GatherElements of these ranks")
    check(host, case, "ternary")


@pytest.mark.parametrize("host", BARE, ids=lambda host: host.name)
def test_portable_files_agree(host: Any, case: Any) -> None:
    if host.name == "onnx.reference" and case.name == "pdat":
        pytest.skip("onnx's evaluator fails in GatherElements of these ranks")
    check(host, case, "portable")


def test_what_sofie_lacks_is_known(case: Any) -> None:
    """ROOT's parser lacks two operators that every ternary layer needs."""
    missing = hosts.missing_in_sofie(case.files["portable"])
    assert {"Round", "ReduceMax"} <= set(missing)
    assert not {"Sub", "Mul", "MatMul"} & set(missing)
