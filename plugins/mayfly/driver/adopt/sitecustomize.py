"""On the path of the user's script only: scripts that would start a cluster of their own get the run's.

`Client(n_workers=4)`, `Client(processes=False)`, `LocalCluster(...)`, `client.shutdown()` are what tutorials say.
Nothing is imported here: two modules of `distributed` are changed when, and if, the script imports them. Each adoption
says one line. An explicit address is left alone, and `adopt: false` in job.yaml turns all this off.

It also makes the script show its call stacks on SIGUSR1, and end when the supervisor ends; and it lets the script wait
for the cluster where it was started early (see `mayfly_early`).
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
from typing import Any

_ADDRESS = os.environ.get("DASK_SCHEDULER_ADDRESS", "")
_EARLY = "MAYFLY_EARLY" in os.environ
_WORKERS = int(os.environ.get("MAYFLY_WORKERS") or 0)
_HERE = os.path.dirname(os.path.abspath(__file__))
_said: set[str] = set()


def _say(text: str) -> None:
    if text not in _said and sys.stderr is not None:
        _said.add(text)
        try:
            sys.stderr.write(f"[mayfly] {text}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # the script has closed it
            pass


def _shown(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}"[:80] for name, value in arguments.items())


def _adopt_client(module: Any) -> None:
    """Change `distributed.client.Client` in place: subclasses and `isinstance` keep working."""
    import inspect

    client = module.Client
    init, shutdown, restart, wait = client.__init__, client._shutdown, client.restart, client.wait_for_workers
    own = set(inspect.signature(init).parameters) - {"self", "kwargs", "security"}

    @functools.wraps(init)
    def adopted_init(self: Any, address: Any = None, *args: Any, **kwargs: Any) -> None:
        if address is None and not kwargs.get("scheduler_file") and _run_address():
            dropped = {name: kwargs.pop(name) for name in list(kwargs) if name not in own}
            if dropped:
                _say(f"Client({_shown(dropped)}): using the run's cluster; its size comes from job.yaml")
        init(self, address, *args, **kwargs)

    def is_ours(self: Any) -> bool:
        return getattr(self.scheduler, "address", None) == _ADDRESS

    @functools.wraps(shutdown)
    async def adopted_shutdown(self: Any) -> None:
        if not is_ours(self):
            await shutdown(self)
            return
        _say("client.shutdown(): only this client closes; the run's cluster ends with the job")
        cluster = self.cluster
        await self._close()
        if cluster is not None:
            await cluster._close()

    @functools.wraps(restart)
    def adopted_restart(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_ours(self):
            _say("client.restart(): the run's workers start anew")
        return restart(self, *args, **kwargs)

    @functools.wraps(wait)
    def adopted_wait(self: Any, n_workers: int, *args: Any, **kwargs: Any) -> Any:
        return wait(self, _capped(n_workers) if is_ours(self) else n_workers, *args, **kwargs)

    client.__init__, client._shutdown = adopted_init, adopted_shutdown
    client.restart, client.wait_for_workers = adopted_restart, adopted_wait


def _adopt_local_cluster(module: Any) -> None:
    """Put a cluster object in the place of LocalCluster that is a view of the run's cluster and owns nothing."""
    import asyncio
    import contextlib

    from distributed.core import Status, rpc
    from distributed.deploy.cluster import Cluster
    from distributed.objects import SchedulerInfo
    from distributed.security import Security

    class LocalCluster(Cluster):  # type: ignore[misc]
        """The run's cluster. `scale` and `adapt` change nothing, `close` closes the view."""

        def __init__(self, *args: Any, asynchronous: bool = False, loop: Any = None, name: Any = None, **kwargs: Any):
            given = {**({"n_workers": args[0]} if args else {}), **kwargs}
            _say(f"LocalCluster({_shown(given)}): using the run's cluster; its size comes from job.yaml")
            self.security = Security()
            super().__init__(asynchronous=asynchronous, loop=loop, quiet=True, name=name)
            if not self.called_from_running_loop:
                self._loop_runner.start()
                self.sync(self._start)

        def __await__(self) -> Any:
            async def started() -> Any:
                if self.status == Status.created:
                    await self._start()
                return self

            return started().__await__()

        async def _start(self) -> None:
            # Not the base class's way: it would subscribe to the workers' state, a subscription that the scheduler
            # holds for one only, the run's own cluster object.
            self.scheduler_comm = rpc(_ADDRESS, connection_args=self.security.get_connection_args("client"))
            await self._refresh()
            self.status = Status.running
            self._sync_cluster_info_task = asyncio.ensure_future(self._follow())

        async def _refresh(self) -> None:
            self.scheduler_info = SchedulerInfo(await self.scheduler_comm.identity())

        async def _follow(self) -> None:
            while True:
                await asyncio.sleep(1)
                with contextlib.suppress(OSError):
                    await self._refresh()

        @property
        def workers(self) -> Any:
            return self.scheduler_info["workers"]

        def scale(self, n: int | None = None, **kwargs: Any) -> None:
            _say(f"cluster.scale({n}): left alone; the size comes from job.yaml")

        def adapt(self, *args: Any, **kwargs: Any) -> None:
            _say("cluster.adapt(): left alone; the size comes from job.yaml")

        def wait_for_workers(self, n_workers: int, timeout: float | None = None) -> Any:
            return super().wait_for_workers(_capped(n_workers), timeout)

    LocalCluster.__module__ = module.__name__
    module.LocalCluster = LocalCluster


def _capped(n_workers: Any) -> Any:
    """More workers than the run can have never come: wait for those that do."""
    if _WORKERS and isinstance(n_workers, int) and n_workers > _WORKERS:
        _say(f"wait_for_workers({n_workers}): the run has at most {_WORKERS}, waiting for those")
        return _WORKERS
    return n_workers


def _run_address() -> bool:
    import dask

    return bool(_ADDRESS) and dask.config.get("scheduler-address", None) == _ADDRESS


_CHANGES = {"distributed.client": _adopt_client, "distributed.deploy.local": _adopt_local_cluster}


class _Hook:
    """A finder that lets the others find, and changes a module right after it was executed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        change = _CHANGES.get(name)
        if change is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                break
        else:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


def _end_with_supervisor() -> None:
    """The script itself, not its children: when the supervisor is killed, nobody would end the script."""
    if sys.platform == "linux" and os.environ.get("MAYFLY_SUPERVISOR") == str(os.getppid()):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _run_other_sitecustomize() -> None:
    """There is one place of this name on the path, and ours has taken it: run the one behind it."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None and os.path.abspath(spec.origin or "") != os.path.abspath(__file__):
        spec.loader.exec_module(module_from_spec(spec))


_end_with_supervisor()
faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
if os.environ.get("MAYFLY_ADOPT") == "1" and (_ADDRESS or _EARLY):
    sys.meta_path.insert(0, _Hook())
if _EARLY:
    import mayfly_early

    mayfly_early.wait()
    _ADDRESS = os.environ["DASK_SCHEDULER_ADDRESS"]
_run_other_sitecustomize()
