"""`python -m pipeline`: the `gristmill` command."""

import sys

from pipeline.cli import main

sys.exit(main())
