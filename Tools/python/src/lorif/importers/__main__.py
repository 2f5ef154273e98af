"""`python -m lorif.importers`: the command behind `lorif import`."""

import sys

from lorif.importers.command import main

sys.exit(main())
