"""Asking YARN's ResourceManager by its REST interface: standard library only, one deadline a question.

Every question may be asked at any time. Who gets no answer knows nothing: `YarnUnavailable` is never an end, and the
same question may be asked again. Reference of the answers:
https://hadoop.apache.org/docs/stable/hadoop-yarn/hadoop-yarn-site/ResourceManagerRest.html
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from mayfly.contract import YarnAccount, YarnPlan
from mayfly.errors import YarnError, YarnRefused, YarnUnavailable
from mayfly.yarn import account as accounts
from mayfly.yarn import fit, waiting
from mayfly.yarn import queues as schedulers
from mayfly.yarn.facts import (
    Application,
    Container,
    Life,
    Node,
    NodeState,
    Size,
    items,
    read_application,
    read_applications,
    read_containers,
    read_nodes,
)
from mayfly.yarn.http import Http, NotThere
from mayfly.yarn.queues import Queues
from mayfly.yarn.site import HadoopSite, user_of

FORGOTTEN_AFTER = 20.0
"""Seconds after which an application that the ResourceManager does not know counts as ended: one that was restarted
without recovery has forgotten it, and ends what is left of it on the nodes."""

_STATES = ",".join(state for state in NodeState if state is not NodeState.UNKNOWN)
"""Without naming them one gets those that are active."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """`version` is Hadoop's ("3.5.0"); `active` is False on a standby."""

    version: str
    state: str
    active: bool
    started_at: float


class ResourceManager:
    """One cluster's ResourceManager(s). Blocking; safe to use from several threads.

    `hosts` are (host, port) of its RPC, the direction in which a UDP socket finds this machine's address; `site` is the
    configuration file, `user` as whom we ask.
    """

    def __init__(self, *, http: Http, hosts: tuple[tuple[str, int], ...], site: Path, user: str) -> None:
        self._http = http
        self.hosts, self.site, self.user = hosts, site, user
        self._not_known_since: dict[str, float] = {}
        self._settings: dict[str, str | None] = {}

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> ResourceManager:
        """From the Hadoop configuration that `environment` names, see `HadoopSite.find`. Asks nothing. YarnRefused when
        there is none, or when it demands Kerberos."""
        site = HadoopSite.find(environment)
        if site.get("hadoop.security.authentication", "simple").lower() == "kerberos":
            raise YarnRefused(
                f"the cluster demands Kerberos (hadoop.security.authentication in {site.folder}/core-site.xml); "
                "Mayfly's launcher yarn does not speak it yet"
            )
        user = user_of(environment)
        https = site.get("yarn.http.policy", "HTTP_ONLY").upper() == "HTTPS_ONLY"
        members: list[str] = []
        if site.is_set("yarn.resourcemanager.ha.enabled"):
            members = [part.strip() for part in site.get("yarn.resourcemanager.ha.rm-ids").split(",") if part.strip()]
        suffixes = [f".{member}" for member in members] or [""]
        key, port = ("webapp.https", 8090) if https else ("webapp", 8088)
        pages = [_address(site, key, suffix, port) for suffix in suffixes]
        scheme = "https" if https else "http"
        return cls(
            http=Http([f"{scheme}://{host}:{port}" for host, port in pages], user=user),
            hosts=tuple(_address(site, "", suffix, 8032) for suffix in suffixes),
            site=site.yarn_site,
            user=user,
        )

    @property
    def page(self) -> str:
        """Of the one that answered last, for people."""
        return f"{self._http.base}/cluster"

    def info(self) -> Info:
        """YarnUnavailable when no ResourceManager answers."""
        told = self._http.get("/ws/v1/cluster/info").get("clusterInfo", {})
        return Info(
            version=str(told.get("hadoopVersion", "")),
            state=str(told.get("state", "")),
            active=told.get("haState", "ACTIVE") == "ACTIVE",
            started_at=told.get("startedOn", 0) / 1000,
        )

    def queues(self) -> Queues:
        queues = schedulers.read_queues(self._http.get("/ws/v1/cluster/scheduler"))
        for name in schedulers.SETTINGS:
            self._ask_setting(name)
        return schedulers.with_settings(queues, self._settings)

    def nodes(self) -> tuple[Node, ...]:
        """All nodes in any state."""
        return read_nodes(self._http.get(f"/ws/v1/cluster/nodes?states={_STATES}"))

    def leaving(self) -> tuple[Node, ...]:
        """Nodes that are being decommissioned gracefully."""
        return read_nodes(self._http.get(f"/ws/v1/cluster/nodes?states={NodeState.DECOMMISSIONING}"))

    def labels(self) -> tuple[str, ...]:
        """Node labels that exist."""
        told = self._http.get("/ws/v1/cluster/get-node-labels")
        return tuple(str(label.get("name")) for label in items(told, "nodeLabelInfo"))

    def check(self, yarn: YarnPlan, *, worker: Size, master: Size, workers: int) -> tuple[str, ...]:
        """Whether an application of one `master` and `workers` workers of these container sizes can run.

        YarnRefused with a sentence for the user when it never can: unknown or stopped queue, user not allowed,
        unknown node label, container too large. Returns notes on what may make it wait. What YARN does not tell is
        not checked."""
        return fit.check(
            fit.Request(
                queue=yarn.queue, label=yarn.node_label, user=self.user, worker=worker, master=master, workers=workers
            ),
            queues=self.queues(),
            nodes=self.nodes(),
            labels=self.labels() if yarn.node_label else (),
        )

    def applications(self, tag: str) -> tuple[Application, ...]:
        """Those of this tag that have not ended."""
        told = self._http.get(
            f"/ws/v1/cluster/apps?applicationTags={quote(tag)}&states=NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING"
        )
        return tuple(found for found in read_applications(told) if tag in found.tags)

    def application(self, app_id: str) -> Application:
        """`life` is UNKNOWN when the ResourceManager does not know it, and FAILED when that has been so for long."""
        try:
            told = self._http.get(f"/ws/v1/cluster/apps/{quote(app_id)}")
        except NotThere:
            since = self._not_known_since.setdefault(app_id, time.monotonic())
            forgotten = time.monotonic() - since > FORGOTTEN_AFTER
            text = "the ResourceManager has forgotten it (restarted without recovery?)"
            return Application(id=app_id, life=Life.FAILED if forgotten else Life.UNKNOWN, diagnostics=text)
        self._not_known_since.pop(app_id, None)
        return read_application(told.get("app", {}))

    def state(self, app_id: str) -> Life:
        """Like `application`, and UNKNOWN instead of YarnUnavailable."""
        try:
            return self.application(app_id).life
        except YarnError:
            return Life.UNKNOWN

    def kill(self, app_id: str) -> None:
        """Idempotent; an application that has ended or is not known is left alone. Returns before it has ended."""
        try:
            self._http.put(f"/ws/v1/cluster/apps/{quote(app_id)}/state", {"state": "KILLED"})
        except NotThere:
            pass

    def renew(self, app_id: str, seconds: float) -> None:
        """YARN shall kill the application in `seconds` from now, unless renewed: by the ResourceManager's clock, as
        it tells in its answers, so that a wrong clock here does no harm."""
        if self._http.now() is None:
            self.info()
        until = datetime.fromtimestamp((self._http.now() or time.time()) + seconds, UTC)
        moment = until.strftime("%Y-%m-%dT%H:%M:%S.") + f"{until.microsecond // 1000:03d}+0000"
        try:
            self._http.put(
                f"/ws/v1/cluster/apps/{quote(app_id)}/timeout",
                {"timeout": {"type": "LIFETIME", "expiryTime": moment}},
            )
        except NotThere as error:
            raise YarnRefused(f"{app_id}: not known to the ResourceManager, its lifetime cannot be set") from error

    def set_priority(self, app_id: str, priority: int) -> None:
        """Higher comes first within a queue. YarnRefused where the scheduler knows no priorities (Fair), or the queue
        forbids it."""
        try:
            self._http.put(f"/ws/v1/cluster/apps/{quote(app_id)}/priority", {"priority": priority})
        except NotThere as error:
            raise YarnRefused(f"{app_id}: not known to the ResourceManager, its priority cannot be set") from error

    def why_waiting(self, app_id: str, *, wanted: int, have: int, worker: Size) -> str:
        """One line, such as "3 of 8 workers; queue batch at its maximum 50 %; pending 5 x 14 GB". Never raises: says
        that the ResourceManager does not answer instead."""
        try:
            application = self.application(app_id)
            queues, nodes = self.queues(), self.nodes()
        except YarnUnavailable:
            return f"{have} of {wanted} workers; the ResourceManager does not answer"
        except YarnError as error:
            return f"{have} of {wanted} workers; {error}"
        return waiting.why(application, queues, nodes, wanted=wanted, have=have, worker=worker)

    def containers(self, app_id: str) -> tuple[Container, ...]:
        """Those that live now. Why others ended only the application master knows: `facts.containers_of`."""
        try:
            attempts = items(
                self._http.get(f"/ws/v1/cluster/apps/{quote(app_id)}/appattempts"), "appAttempts", "appAttempt"
            )
            if not attempts:
                return ()
            last = max(attempts, key=lambda attempt: attempt.get("id", 0))
            name = last.get("appAttemptId") or _attempt_name(app_id, int(last.get("id", 1)))
            told = self._http.get(f"/ws/v1/cluster/apps/{quote(app_id)}/appattempts/{quote(str(name))}/containers")
        except NotThere:
            return ()
        return read_containers(told)

    def account(self, app_ids: Iterable[str], containers: Iterable[Container] = ()) -> YarnAccount:
        """YARN's account of all applications of an attempt. `containers`: all that skein knows of, for counts and for
        the nodes. An application that cannot be asked for is missing in `applications` of the answer; never raises."""
        found = []
        for app_id in app_ids:
            try:
                application = self.application(app_id)
            except YarnError:
                continue
            if application.life is not Life.UNKNOWN:
                found.append(application)
        return accounts.account(found, containers)

    def _ask_setting(self, name: str) -> None:
        """Of the ResourceManager's own configuration; None where it does not tell. Once: it does not change."""
        if name in self._settings:
            return
        told: Mapping[str, object] = {}
        try:
            told = self._http.get(f"/conf?name={quote(name)}")
        except YarnRefused:
            pass
        except YarnUnavailable:
            return
        found = told.get("property")
        value = found.get("value") if isinstance(found, Mapping) else None
        self._settings[name] = None if value is None else str(value)


def _attempt_name(app_id: str, number: int) -> str:
    return f"{app_id.replace('application_', 'appattempt_')}_{number:06d}"


def _address(site: HadoopSite, key: str, suffix: str, port: int) -> tuple[str, int]:
    """Of `yarn.resourcemanager[.key].address[.member]`, by Hadoop's own defaults."""
    name = f"yarn.resourcemanager.{key + '.' if key else ''}address"
    value = site.get(name + suffix) or site.get(name)
    fallback = site.get(f"yarn.resourcemanager.hostname{suffix}") or site.get("yarn.resourcemanager.hostname")
    host, _, number = value.rpartition(":") if ":" in value else (value, "", "")
    if not host or "${" in host or host in ("0.0.0.0", "[::]"):
        host = fallback or "localhost"
    if host in ("0.0.0.0", "[::]"):
        host = "localhost"
    return host, int(number) if number.isdigit() else port
