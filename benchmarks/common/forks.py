"""Each measurement in a fork of its own: what one leaves behind (objects, caches, garbage) is not the next one's."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any


def in_fork(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` in a child of this process, and its result. RuntimeError when the child failed."""

    def run() -> Any:
        sys.stdout.flush()
        sys.stderr.flush()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                with os.fdopen(writer, "wb") as out:
                    pickle.dump(call(), out)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader, "rb") as result:
            data = result.read()
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError("the measured process failed; its traceback is above")
        return pickle.loads(data)

    return run
