"""`python -m trainer`: the command line of cli.py, also under torchrun (`torchrun -m trainer CONFIG`)."""

import sys

from trainer.cli import main

sys.exit(main())
