import sys

from f2fd_core.cli import main

sys.exit(main())
