"""Asking YARN's ResourceManager by its REST interface: standard library only, one deadline a question.

Every question may be asked at any time. Who gets no answer knows nothing: `YarnUnavailable` is never an end, and the
same question may be asked again. Reference of the answers:
https://hadoop.apache.org/docs/stable/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mayfly.contract import YarnAccount, YarnPlan
from mayfly.driver.launchers.yarn_queues import Application, Container, Life, Node, Queues, Size

TIMEOUT = 10.0
"""Seconds one question may take, all ResourceManagers of an HA pair together twice that."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """`version` is Hadoop's ("3.5.0"); `active` is False on a standby."""

    version: str
    state: str
    active: bool
    started_at: float


class ResourceManager:
    """One cluster's ResourceManager(s). Blocking; safe to use from several threads.

    `page` is the address of its web page for people. `hosts` are (host, port) of its RPC, the direction in which a UDP
    socket finds this machine's address.
    """

    page: str
    hosts: tuple[tuple[str, int], ...]
    user: str

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> ResourceManager:
        """From the Hadoop configuration that `environment` names (HADOOP_CONF_DIR, YARN_CONF_DIR, HADOOP_HOME, else
        /etc/hadoop/conf). Asks nothing. YarnRefused when there is none, or when it demands Kerberos."""
        raise NotImplementedError

    def info(self) -> Info:
        """YarnUnavailable when no ResourceManager answers."""
        raise NotImplementedError

    def queues(self) -> Queues:
        raise NotImplementedError

    def nodes(self) -> tuple[Node, ...]:
        """All nodes in any state."""
        raise NotImplementedError

    def check(self, yarn: YarnPlan, *, worker: Size, master: Size, workers: int) -> tuple[str, ...]:
        """Whether an application of one `master` and `workers` workers of these container sizes can run.

        YarnRefused with a sentence for the user when it never can: unknown or stopped queue, user not allowed,
        unknown node label, container too large. Returns notes on what may make it wait. What YARN does not tell is
        not checked."""
        raise NotImplementedError

    def applications(self, tag: str) -> tuple[Application, ...]:
        """Those of this tag that have not ended."""
        raise NotImplementedError

    def application(self, app_id: str) -> Application:
        """`life` is UNKNOWN when the ResourceManager does not know it (a restart without recovery loses all)."""
        raise NotImplementedError

    def state(self, app_id: str) -> Life:
        """Like `application`, and UNKNOWN instead of YarnUnavailable."""
        raise NotImplementedError

    def kill(self, app_id: str) -> None:
        """Idempotent; an application that has ended or is not known is left alone. Returns before it has ended."""
        raise NotImplementedError

    def renew(self, app_id: str, seconds: float) -> None:
        """YARN shall kill the application in `seconds` from now, unless renewed: by the ResourceManager's clock, as
        it tells in its answers, so that a wrong clock here does no harm."""
        raise NotImplementedError

    def why_waiting(self, app_id: str, *, wanted: int, have: int, worker: Size) -> str:
        """One line, such as "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 14 GB". Never raises: says
        that the ResourceManager does not answer instead."""
        raise NotImplementedError

    def containers(self, app_id: str) -> tuple[Container, ...]:
        """Those that live now. Why others ended only the application master knows: `yarn_queues.containers_of`."""
        raise NotImplementedError

    def account(self, app_ids: Iterable[str], containers: Iterable[Container] = ()) -> YarnAccount:
        """YARN's account of all applications of an attempt. `containers`: all that skein knows of, for counts and for
        the nodes. An application that cannot be asked for is missing in `applications` of the answer; never raises."""
        raise NotImplementedError
