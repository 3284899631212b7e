"""Old and other runtimes, each in an environment of its own: `make test-hosts` (they are installed at first use)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from other_hosts import FOLDER, hosts, installed

pytestmark = [pytest.mark.hosts, pytest.mark.slow]
SAME_BITS = ("caloinn", "smeftnet")
"""As exported by default, called alike: the others hold float operators whose order of sums changed over versions."""
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
    expected = case.expected(file)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * scale)
    if not (host.library or host.preload):
        return
    if file == "ternary" and host.pattern == "Par04":
        # onnxruntime's ReduceSum over one row and over four adds in different orders; fusions are switched off.
        alike = replace(hosts.NEWEST_LIBRARY, pattern=host.pattern)
        expected, _ = alike.run(case.files[file], case.feed, FOLDER)
    if file == "reproducible" or case.name in SAME_BITS:
        np.testing.assert_array_equal(found, expected)


FUNCTIONS = [host for host in hosts.HOSTS if host.client != hosts.OPENVINO]
BARE = [host for host in hosts.HOSTS if not (host.library or host.preload or host.client == hosts.NODE)]


OURS = [host for host in hosts.HOSTS if host.library or host.preload]


@pytest.mark.parametrize("host", FUNCTIONS, ids=lambda host: host.name)
def test_exported_files_agree(host: Any, case: Any) -> None:
    if host.name == "onnx.reference" and case.name == "pdat":
        pytest.skip("onnx's evaluator gathers from at most 64 elements; portable files avoid it")
    check(host, case, "ternary")


@pytest.mark.parametrize("host", OURS, ids=lambda host: host.name)
def test_reproducible_files_have_the_same_bits(host: Any, case: Any) -> None:
    """Whatever runtime, however called: optimised or not, in one batch or alone."""
    check(host, case, "reproducible")


@pytest.mark.parametrize("host", BARE, ids=lambda host: host.name)
def test_portable_files_agree(host: Any, case: Any) -> None:
    check(host, case, "portable")


def test_what_sofie_lacks_is_known(case: Any) -> None:
    """ROOT's parser lacks two operators that every ternary layer needs."""
    missing = hosts.missing_in_sofie(case.files["portable"])
    assert {"Round", "ReduceMax"} <= set(missing)
    assert not {"Sub", "Mul", "MatMul"} & set(missing)
