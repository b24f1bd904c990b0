"""`python -m mayfly`: the `mayfly` command."""

import sys

from mayfly.cli.main import main

sys.exit(main())
