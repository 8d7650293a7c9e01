"""`python -m trainer`: train by a configuration, or ask about a run. See `--help`."""

import sys

from trainer.cli import main

sys.exit(main())
