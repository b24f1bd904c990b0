"""Faults by rule. A rule is a JSON object:

`on`       a verb of the API (`CreateCluster`, `GetJob`, `GetOperation`, ...; `*` = any), or a thing that happens behind
           the API: `boot` (a cluster is made), `running` (a cluster has become RUNNING), `shutdown` (a cluster is
           deleted), `job` (a job is about to run)
`do`       what happens; the table is in README.md
`cluster`  name pattern such as `mf-*`; default: every cluster (and calls that name none)
`project`  likewise, of the project
`nth`      only the n-th matching event, counted from 1 for this rule; 0 (default) = every one
`times`    how often at most; 0 (default) = without end
`when`     `before` (default) or `after` a verb takes effect
further keys are the effect's own: `code`, `message`, `seconds`, `node`, `exit`, `reason`, ...
"""

from __future__ import annotations

import fnmatch
import threading
import time
import uuid
from typing import Any

from tests.emulators.dataproc.errors import ApiError, Cut, Hang

BEHIND = ("boot", "running", "shutdown", "job")
VERB_EFFECTS = {
    "429": (
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for quota metric 'Requests' of service 'dataproc.googleapis.com' for 'project:{project}'.",
    ),
    "500": ("INTERNAL", "Internal error encountered."),
    "503": ("UNAVAILABLE", "The service is currently unavailable."),
    "504": ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "403": ("PERMISSION_DENIED", "Permission '{permission}' denied on resource '{resource}' (or it may not exist)."),
    "401": (
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token or other valid credential.",
    ),
}
_KNOWN = {
    "boot": {"stuck", "error", "init_fails", "init_hangs", "delay", "missing"},
    "running": {"error", "preempt", "lose", "cut", "heal"},
    "shutdown": {"stuck", "error", "delay"},
    "job": {"body", "stuck", "lost", "error", "cluster_error"},
}
Rule = dict[str, Any]


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._seen: dict[str, int] = {}
        self._fired: dict[str, int] = {}
        self._removed: set[str] = set()

    def add(self, rule: Rule, verbs: set[str]) -> str:
        """Returns the rule's id. ValueError for what is not understood."""
        on, do = rule.get("on"), rule.get("do")
        if on in BEHIND:
            if do not in _KNOWN[on]:
                raise ValueError(f"on {on!r} there is no {do!r}; there are: {', '.join(sorted(_KNOWN[on]))}")
        elif on != "*" and on not in verbs:
            raise ValueError(f"nothing is called {on!r}; there are: *, {', '.join([*BEHIND, *sorted(verbs)])}")
        elif do not in {*VERB_EFFECTS, "error", "cut", "hang", "delay"}:
            raise ValueError(f"a call cannot {do!r}; it can: {', '.join([*VERB_EFFECTS, 'error, cut, hang, delay'])}")
        if rule.get("when", "before") not in ("before", "after"):
            raise ValueError(f"`when` is before or after, not {rule['when']!r}")
        rule = {"id": uuid.uuid4().hex[:8], **rule}
        with self._lock:
            self._rules.append(rule)
        return str(rule["id"])

    def remove(self, rule: str) -> None:
        """It fires no more; how often it has fired is still known."""
        with self._lock:
            for found in self._rules:
                if found["id"] == rule:
                    found["times"] = self._fired.get(rule, 0) or -1
                    self._removed.add(rule)

    def clear(self) -> None:
        with self._lock:
            self._rules, self._seen, self._fired, self._removed = [], {}, {}, set()

    def hold(self, rule: Rule, until: threading.Event, seconds: float = 1e8) -> None:
        """Blocks until the event, for at most so many seconds, and no longer than the rule stands."""
        deadline = time.monotonic() + seconds
        while self._stands(rule) and (left := deadline - time.monotonic()) > 0:
            if until.wait(min(left, 0.05)):
                break

    def _stands(self, rule: Rule) -> bool:
        with self._lock:
            return rule["id"] not in self._removed and any(found["id"] == rule["id"] for found in self._rules)

    def fired(self) -> dict[str, int]:
        """How often each rule has fired, by its id."""
        with self._lock:
            return {rule["id"]: self._fired.get(rule["id"], 0) for rule in self._rules}

    def due(self, on: str, cluster: str, project: str, when: str = "before") -> list[Rule]:
        """The rules that fire for this event; each is counted once."""
        found = []
        with self._lock:
            for rule in self._rules:
                key = rule["id"]
                if rule["on"] != on and not (rule["on"] == "*" and on not in BEHIND):
                    continue
                here = {"cluster": cluster, "project": project}
                if rule.get("when", "before") != when or not all(
                    fnmatch.fnmatchcase(here[name], rule.get(name, "*")) for name in ("cluster", "project")
                ):
                    continue
                self._seen[key] = self._seen.get(key, 0) + 1
                nth, times = rule.get("nth", 0), rule.get("times", 0)
                if (nth and self._seen[key] != nth) or (times and self._fired.get(key, 0) >= times):
                    continue
                self._fired[key] = self._fired.get(key, 0) + 1
                found.append(rule)
        return found

    def strike(self, verb: str, cluster: str, when: str, **names: str) -> float:
        """Raises what a call meets; returns for how many seconds it is delayed."""
        delay = 0.0
        for rule in self.due(verb, cluster, names["project"], when):
            do = rule["do"]
            if do == "delay":
                delay += float(rule["seconds"])
            elif do == "cut":
                raise Cut
            elif do == "hang":
                raise Hang(float(rule.get("seconds", 3600.0)))
            elif do == "error":
                raise ApiError(rule["code"], rule.get("message", "An error by rule."))
            else:
                code, message = VERB_EFFECTS[do]
                message = rule.get("message") or message.format(**names)
                raise ApiError(code, message)
        return delay
