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


@pytest.fixture(scope="module", params=sorted(hosts.NETWORKS))
def case(request: pytest.FixtureRequest) -> Any:
    return hosts.case(request.param, FOLDER)


@pytest.mark.parametrize("host", hosts.HOSTS, ids=lambda host: host.name)
def test_exported_files_agree(host: Any, case: Any) -> None:
    if host.name == "onnx.reference" and case.name == "pdat":
        pytest.skip("onnx's evaluator fails in GatherElements of these ranks")
    file = "portable" if host.name.startswith("OpenVINO") else "ternary"
    installed(host)
    found, _ = host.run(case.files[file], case.feed, FOLDER)
    scale = np.abs(case.expected).max()
    np.testing.assert_allclose(found, case.expected, atol=TOLERANCE * scale)
    if host.library and case.name in SAME_BITS:
        np.testing.assert_array_equal(found, case.expected)
