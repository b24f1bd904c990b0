"""`python -m mayfly.driver RUNDIR JOB ATTEMPT`: see `mayfly.driver.supervisor`."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    # A request to stop that comes while we still import must wait, not kill: `Loop` lets it through.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from mayfly.driver.supervisor import main

    sys.exit(main(sys.argv[1:]))
