"""Print what one core can do at most: products a second by instruction, bytes a second by level of memory.

Builds and runs `ternary_limits.cc`; the percentages in `docs/performance.md` refer to it. Needs AVX512-VNNI and g++.
"""

import os
import subprocess
import tempfile
from pathlib import Path


def main() -> None:
    """Build and run the program."""
    source = Path(__file__).with_suffix(".cc")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        subprocess.run([os.environ.get("CXX", "g++"), "-O2", source, "-o", program], check=True)
        subprocess.run([program], check=True)


if __name__ == "__main__":
    main()
