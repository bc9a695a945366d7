"""`python -m gradnas`."""

import sys

from gradnas.cli.main import main

sys.exit(main())
