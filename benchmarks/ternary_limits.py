"""Print what one core can do at most: products a second by instruction, bytes a second by level of memory.

Builds and runs `ternary_limits.cc`; the percentages in `docs/performance.md` refer to it. Needs an x86
processor with AVX2, and g++; what the processor does not have is left out.
"""

import os
import subprocess
import tempfile
from pathlib import Path


def measured() -> str:
    """Build and run the program; give what it prints."""
    source = Path(__file__).with_suffix(".cc")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        subprocess.run([os.environ.get("CXX", "g++"), "-O2", source, "-o", program], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Print the table."""
    print(measured(), end="")


if __name__ == "__main__":
    main()
