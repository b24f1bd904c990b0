"""`python -m mayfly.driver RUNDIR JOB ATTEMPT`: see `mayfly.driver.supervisor`."""

from __future__ import annotations

import sys

from mayfly.driver.supervisor import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
