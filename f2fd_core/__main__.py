"""``python -m f2fd_core``: the same as the program ``f2fd``."""

import sys

from f2fd_core.cli import main

sys.exit(main())
