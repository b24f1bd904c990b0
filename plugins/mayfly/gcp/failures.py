"""What Dataproc says when something goes wrong, as a failure with its class, evidence and advice. Pure.

Google's sentences are recognised by words that its troubleshooting pages quote; nobody promises that they stay. What is
not recognised is quoted all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mayfly.contract import Failure, FailureClass
from mayfly.contract.nodes import NodeReport
from mayfly.failures.logtext import bounded

UNKNOWN: Final = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED"})
"""Codes after which nobody knows whether the call took effect; it is made again."""
BUSY: Final = "RESOURCE_EXHAUSTED"
"""Too many calls a minute: this one took no effect; it is made again, later."""
NOBODY: Final = "UNAUTHENTICATED"
OUTPUT_LINES: Final = 40
_EVIDENCE_LINES: Final = 3 * OUTPUT_LINES
OUTPUTS: Final = 3
"""Nodes whose output is read and quoted: what is wrong with one is mostly wrong with all."""


@dataclass(frozen=True, kw_only=True)
class InitOutput:
    """Where the output of an init action that failed is."""

    node: str
    uri: str
    timed_out: bool = False


@dataclass(frozen=True, kw_only=True)
class _Rule:
    pattern: str
    cls: FailureClass
    advice: str
    retryable: bool = False


_RULES: Final[tuple[_Rule, ...]] = (
    _Rule(
        pattern=r"initialization action (failed|timed out)",
        cls=FailureClass.INIT_ACTION,
        advice=(
            "The node's own words are above. What the set-up needs: the nodes' service account may read the staging "
            "bucket, the subnet has Private Google Access, NFS servers of `gcp.shares` can be reached, the disk has "
            "room for the unpacked environment."
        ),
    ),
    _Rule(
        pattern=r"ZONE_RESOURCE_POOL_EXHAUSTED|STOCKOUT|does not have enough resources available",
        cls=FailureClass.STOCKOUT,
        advice=(
            "Google has no such machines left there at the moment. Leave `gcp.zone` out (Google then chooses one with "
            "room), allow more families in `gcp.families`, or take on-demand machines; clear the group to try again."
        ),
        retryable=True,
    ),
    _Rule(
        pattern=r"insufficient '?[A-Z0-9_]+'? quota|quota .*exceeded|QUOTA_EXCEEDED|exceeds? .*quota",
        cls=FailureClass.QUOTA,
        advice=(
            "The project's quota in this region is used up. Ask for more in the Cloud console (IAM, Quotas), lower "
            "`max_workers` of the target, or run fewer clusters at a time; clear the group to try again."
        ),
        retryable=True,
    ),
    _Rule(
        pattern=r"required '?[\w.]+'? permission|permission '?[\w.]+'? denied|does not have .*(permission|access)|"
        r"(missing|lacks?|not have) .*\b(permission|role)|PERMISSION_DENIED|not authorized|iam\.serviceAccounts\.actAs",
        cls=FailureClass.PERMISSION,
        advice=(
            "Grant what is named above to the account that is named above; docs/gcp.md lists the roles that Mayfly and "
            "its nodes need, and no more."
        ),
    ),
    _Rule(
        pattern=r"private google access|firewall|timed? ?out waiting for .*(report in|instance)|minimum required|"
        r"datanodes|node ?managers running|subnet(work)?.*(not found|does not)|cannot communicate|connectivity",
        cls=FailureClass.NETWORK,
        advice=(
            "The nodes do not reach each other or Google. The subnet needs Private Google Access (nodes have no public "
            "addresses) and a firewall rule that lets nodes of one cluster speak to each other on all ports."
        ),
    ),
    _Rule(
        pattern=r"preempt",
        cls=FailureClass.PREEMPTED,
        advice="Google took a machine back. Clear the whole group to run again on a new cluster.",
        retryable=True,
    ),
)
_KEYS: Final = (
    (r"image", "gcp.image"),
    (r"machine ?type|machinetype", "gcp.families"),
    (r"subnet|network", "gcp.subnet"),
    (r"service ?account", "gcp.service_account"),
    (r"zone", "gcp.zone"),
    (r"region", "gcp.region"),
    (r"kms|cryptokey", "gcp.kms_key"),
    (r"project", "gcp.project"),
    (r"bucket", "staging"),
    (r"ssd|disk", "gcp.disk_type, gcp.disk or gcp.local_ssds"),
)


def init_outputs(detail: str) -> tuple[InitOutput, ...]:
    """Where a cluster's status detail says that the output of failed init actions is, each once."""
    found: dict[str, InitOutput] = {}
    pattern = r"initialization action (failed|timed out).*?see output in:?\s*(gs://[^\s'\",;]+)"
    for match in re.finditer(pattern, detail, re.IGNORECASE | re.DOTALL):
        uri = match[2].rstrip(".)")
        parts = uri.split("/")
        node = parts[-2] if len(parts) > 4 else ""
        found.setdefault(uri, InitOutput(node=node, uri=uri, timed_out=match[1].lower() == "timed out"))
    return tuple(found.values())


def cluster_failure(
    *,
    name: str,
    state: str,
    detail: str,
    ran: bool,
    outputs: Sequence[tuple[InitOutput, Sequence[str]]] = (),
    nodes: Iterable[NodeReport] = (),
) -> Failure:
    """Why a cluster did not start, or died after it `ran`.

    `state` and `detail` are Dataproc's; `outputs` the ends of what failed init actions wrote, `nodes` what set-ups say
    of themselves.
    """
    broken = [node for node in nodes if not node.ok]
    lines = [f"cluster {name} is {state}", *(node.line for node in broken)]
    read = [output.uri for output, tail in outputs if tail]
    for line in detail.splitlines():
        if line.strip() and not any(uri in line for uri in read):  # what was read says more than where it is
            lines.append(f"Dataproc: {line}")
    for output, tail in outputs[:OUTPUTS]:
        ended = "ran into its time limit" if output.timed_out else "failed"
        lines.append(f"init action {ended} on {output.node or 'a node'}; the end of its output ({output.uri}):")
        lines += [f"  {line}" for line in tail[-OUTPUT_LINES:]] or ["  (nothing could be read there)"]
    if len(outputs) > OUTPUTS:
        lines.append(f"and on {len(outputs) - OUTPUTS} nodes more")
    told = {output.node for output, tail in outputs if tail}
    for node in broken:
        if node.node not in told:
            lines += [f"  {node.node}: {line}" for line in node.tail[-OUTPUT_LINES:]]
    rule = _rule(detail)
    cls = rule.cls if rule else FailureClass.INIT_ACTION if broken and not ran else FailureClass.START_FAILED
    advice = rule.advice if rule else "What Dataproc says is above; its operation in the Cloud console may say more."
    if ran and cls is not FailureClass.PREEMPTED:
        cls = FailureClass.CLUSTER_LOST
        advice = (
            "The cluster ended while it was needed: by somebody's hand, by its maximum age or idle limit, or with its "
            "master. Clear the whole group (plan and everything after it) to run again on a new one."
        )
    return Failure(cls=cls, evidence=bounded(lines, _EVIDENCE_LINES), advice=advice, retryable=False)


def refusal(*, code: str, message: str, verb: str, account: str) -> Failure:
    """A clear no of the API to a call, by its gRPC code's name: nothing was done. `account` is who asked."""
    evidence = bounded([f"{verb}: {code}: {message}"])
    if code == "PERMISSION_DENIED":
        named = re.search(r"'?\b([a-z]+(?:\.[a-zA-Z]+){2,})\b'?", message)
        missing = f"the permission {named[1]}" if named else "a permission"
        return Failure(
            cls=FailureClass.PERMISSION,
            evidence=evidence,
            advice=f"{account} lacks {missing} for this; docs/gcp.md lists the roles that are needed, and no more.",
        )
    rule = _rule(message)
    if rule is not None:
        return Failure(cls=rule.cls, evidence=evidence, advice=rule.advice, retryable=rule.retryable)
    keys = [key for pattern, key in _KEYS if re.search(pattern, message, re.IGNORECASE)]
    look = f"Look at {' and '.join(keys[:2])} of the target. " if keys else ""
    advice = f"{look}Nothing was created; the same call would be refused again."
    return Failure(cls=FailureClass.START_FAILED, evidence=evidence, advice=advice)


def _rule(text: str) -> _Rule | None:
    return next((rule for rule in _RULES if re.search(rule.pattern, text, re.IGNORECASE | re.DOTALL)), None)
