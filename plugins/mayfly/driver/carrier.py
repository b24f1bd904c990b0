"""What carries the driver: on clouds the cluster's own job (see `init_actions/carrier.py`), elsewhere nothing."""

from __future__ import annotations

import os

from mayfly.driver.loop import Lines, Loop


class Carrier:
    """`gone` is true from when the pipe `MAYFLY_CARRIER_FD` has ended; for ever false where there is none."""

    def __init__(self, loop: Loop) -> None:
        self.gone = False
        number = os.environ.pop("MAYFLY_CARRIER_FD", "")  # a driver that the script starts has another carrier
        if number.isdigit():
            # Ours alone: a child that held it would change nothing here, but it would be one more thing to explain.
            os.set_inheritable(int(number), False)
            loop.read_lines(os.fdopen(int(number), "rb", buffering=0), Lines(lambda _: None), on_end=self._ended)

    def _ended(self) -> None:
        self.gone = True
