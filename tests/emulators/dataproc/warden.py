"""Runs one command and knows all that descends from it: orphans are adopted (PR_SET_CHILD_SUBREAPER), whatever session
they made for themselves. Run as `python -I -S warden.py '["command", ...]'`, by itself; standard library only.

stdin: "term" / "kill" = that signal to the command; EOF = kill every descendant and end.
stdout: the command's exit code on one line when it has ended (negative = signal). stderr: the command's output.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time

_PR_SET_CHILD_SUBREAPER = 36


def children(pid: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(child) for child in file.read().split()]
    except OSError:
        pass
    return found


def end_all() -> None:
    """Until nothing is left: what a killed process leaves behind becomes our child."""
    while below := children(os.getpid()):
        todo = list(below)
        while todo:
            pid = todo.pop()
            todo += children(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.005)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = json.loads(sys.argv[1])
    answer = os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(answer, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    orders = os.dup(0)
    os.dup2(nothing, 0)
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            os.execvp(command[0], command)
        except BaseException as error:
            os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(127)

    alive = threading.Event()
    alive.set()

    def reap() -> None:
        while True:
            try:
                ended, status = os.wait()
            except ChildProcessError:
                time.sleep(0.02)
                continue
            if ended == pid:
                alive.clear()
                try:
                    os.write(answer, f"{os.waitstatus_to_exitcode(status)}\n".encode())
                except OSError:  # the emulator is gone: so will we be
                    pass

    threading.Thread(target=reap, daemon=True).start()
    with os.fdopen(orders) as lines:
        for line in lines:
            if alive.is_set():
                os.kill(pid, signal.SIGTERM if line.strip() == "term" else signal.SIGKILL)
    end_all()


if __name__ == "__main__":
    main()
