"""`python -m bitsearch`."""

import sys

from bitsearch.cli import main

sys.exit(main())
