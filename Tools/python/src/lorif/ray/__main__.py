"""`python -m lorif.ray`: the command."""

import sys

from lorif.ray.command import main

sys.exit(main())
