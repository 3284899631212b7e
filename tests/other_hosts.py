"""The runtimes of benchmarks/hosts.py, installed at first use under .build/hosts."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".build/hosts"


def _load() -> Any:
    spec = spec_from_file_location("hosts", ROOT / "benchmarks/hosts.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["hosts"] = module
    spec.loader.exec_module(module)
    return module


hosts = _load()


def installed(host: Any) -> Path:
    """Give a host's folder; where its packages do not exist, the summary of the tests says so loudly."""
    try:
        folder = host.environment(FOLDER)
    except hosts.NotInstalledError as error:
        pytest.skip(f"WARNING: {host.name} WAS NOT TESTED: {error}")
    assert isinstance(folder, Path)
    return folder
