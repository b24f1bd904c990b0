"""Every interleaving of creators and deleters, with deaths anywhere, explored exhaustively.

The model has what the real thing has: a store with create-if-absent files, a cloud in which a create call takes effect
between its start and its return, and actors that do one visible thing at a time. The decisions are the real functions
of `mayfly.generation`; only the world around them is a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from mayfly.generation import DeletionFacts, State, prove_deletion, state_of

SETTLE = 2
"""Ticks; a create call that is under way takes effect within this time or never."""


@dataclass(frozen=True)
class World:
    closing: int | None = None
    asked: frozenset[int] = frozenset()
    returned: frozenset[int] = frozenset()
    """Which creators wrote down that they are about to call, and that their call has returned."""
    matched: bool = False
    receipt: bool = False
    cluster: bool = False
    retired: bool = False
    now: int = 0
    calls: tuple[tuple[int, int], ...] = ()
    """(time, creator) of create calls that are under way: from the look at closing.json, after which nothing holds the
    creator back, until they take effect. Their sender may be dead."""
    creators: tuple[str, ...] = ("start",)
    deleters: tuple[str, ...] = ("start",)
    facts: tuple[DeletionFacts | None, ...] = (None,)
    """What each deleter read before its last listing."""


@dataclass(frozen=True)
class Rules:
    """What the actors and the cloud keep to; a test breaks one at a time."""

    tombstones: bool = False
    settle: bool = True
    per_call: bool = True
    facts_first: bool = True
    careful: bool = True


def steps(world: World, rules: Rules) -> list[World]:
    found: list[World] = []
    for index, at in enumerate(world.creators):
        found += [
            replace(done, creators=(*world.creators[:index], to, *world.creators[index + 1 :]))
            for done, to in creator(world, index, at, rules)
        ]
        if at not in ("dead", "done"):
            found.append(replace(world, creators=(*world.creators[:index], "dead", *world.creators[index + 1 :])))
    for index, at in enumerate(world.deleters):
        found += [
            replace(done, deleters=(*world.deleters[:index], to, *world.deleters[index + 1 :]))
            for done, to in deleter(world, index, at, rules)
        ]
    for call in world.calls:  # the cloud works a call off, at any moment within its time
        rest = tuple(other for other in world.calls if other != call)
        refused = rules.tombstones and world.retired
        found.append(replace(world, calls=rest, cluster=world.cluster or not refused))
    if world.now < 2 * SETTLE and not any(world.now - at >= SETTLE - 1 for at, _ in world.calls):
        found.append(replace(world, now=world.now + 1))
    return found


def creator(world: World, me: int, at: str, rules: Rules) -> list[tuple[World, str]]:
    state = state_of(plan=True, closing=world.closing is not None, receipt=world.receipt)
    if at == "start":
        return [(replace(world, asked=world.asked | {me}), "check")]
    if at == "check":
        if state is not State.OPEN:
            return [(world, "done")]
        return [(replace(world, calls=(*world.calls, (world.now, me))), "called")]
    if at == "called":
        return [] if any(sender == me for _, sender in world.calls) else [(world, "after")]
    if at == "after":
        if rules.careful and world.closing is not None:
            return [(replace(world, matched=True), "undo")]
        return [(replace(world, returned=world.returned | {me}), "done")]
    if at == "undo":
        return [(replace(world, cluster=False, returned=world.returned | {me}), "done")]
    return []


def deleter(world: World, me: int, at: str, rules: Rules) -> list[tuple[World, str]]:
    if at == "start":
        return [(replace(world, closing=world.now if world.closing is None else world.closing), "look")]
    if at == "look":
        return [(replace(world, matched=world.matched or world.cluster), "delete")]
    if at == "delete":
        return [(replace(world, cluster=False, retired=True), "gather")]
    if at == "gather":
        return [(with_facts(world, me, rules), "list")]
    if at == "list":
        return [(world, "look" if world.cluster else "decide")]
    if at == "decide":
        facts = world.facts[me] if rules.facts_first else with_facts(world, me, rules).facts[me]
        assert facts is not None
        proof = prove_deletion(facts)
        if proof.wait_until is not None:
            return [] if world.now < proof.wait_until else [(world, "look")]
        return [(world, "unproven")] if proof.unproven else [(replace(world, receipt=True), "done")]
    return []


def with_facts(world: World, me: int, rules: Rules) -> World:
    assert world.closing is not None
    facts = DeletionFacts(
        asked=bool(world.asked),
        created=bool(world.returned),
        pending=bool(world.asked - world.returned) if rules.per_call else not world.returned,
        matched=world.matched,
        expired=False,
        settle_seconds=SETTLE if rules.settle else 0,
        closing_at=world.closing,
        now=world.now,
    )
    return replace(world, facts=(*world.facts[:me], facts, *world.facts[me + 1 :]))


def explore(rules: Rules, *, creators: int = 1, deleters: int = 1) -> tuple[int, list[World]]:
    """(number of states, those in which a receipt is a lie for good)."""
    start = World(creators=("start",) * creators, deleters=("start",) * deleters, facts=(None,) * deleters)
    seen = {start}
    todo = [start]
    lies = []
    while todo:
        world = todo.pop()
        # A cluster beside a receipt may be there for a moment, while a creator that lives is about to delete it.
        undoing = any(at in ("called", "after", "undo") for at in world.creators) or world.calls
        if world.receipt and world.cluster and not undoing:
            lies.append(world)
        for new in steps(world, rules):
            if new not in seen:
                seen.add(new)
                todo.append(new)
    return len(seen), lies


@pytest.mark.parametrize(
    "rules", [Rules(tombstones=True, settle=False), Rules()], ids=["names retire", "absence settles"]
)
@pytest.mark.parametrize(("creators", "deleters"), [(1, 1), (2, 1), (1, 2)])
def test_a_receipt_is_true_in_every_interleaving(creators: int, deleters: int, rules: Rules) -> None:
    states, lies = explore(rules, creators=creators, deleters=deleters)
    assert states > 50
    assert not lies, lies[0]


@pytest.mark.parametrize(
    ("rules", "creators", "why"),
    [
        (Rules(settle=False), 1, "a call that is under way takes effect after the listing"),
        (Rules(per_call=False), 2, "one creator's return says nothing of another's call"),
        (Rules(facts_first=False, careful=False), 1, "a call that returns between listing and deciding was not listed"),
    ],
)
def test_each_rule_is_needed(rules: Rules, creators: int, why: str) -> None:
    """The search does find a lie when a rule is broken, so it can fail."""
    _, lies = explore(rules, creators=creators)
    assert lies, why
