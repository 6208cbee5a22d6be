"""Everything that ever changed in a registry, from its proved transactions.

The registry emits an event for every step of its governance, with the whole change inside, and counts changes
in its state. `read_history` reads all transactions back to the first and checks the count, so nothing can be
left out. Events: ``ton_contracts/cocoon.tlb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.reference import TeeKind, release_from_cell
from cocoon_ton import opcodes
from cocoon_ton.address import raw_address
from cocoon_ton.attestation_rules import parse_rule
from cocoon_ton.cells import Reader, read_text, ton_to_record
from cocoon_ton.chain import ChainReader
from cocoon_ton.errors import ChainProofError, ChainUnavailableError
from cocoon_ton.node import parse_parameters
from cocoon_ton.registry import EntryState, parse_node_entry, parse_policy, parse_registry
from cocoon_ton.registry_messages import Removal
from cocoon_ton.values import TransactionInfo

MAX_TRANSACTIONS: Final = 100_000
"""Transactions that are read at most."""

Details = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEvent:
    """One step of a registry's history."""

    kind: str
    """``deployed``, ``announced``, ``executed``, ``cancelled``, ``removed``, ``governance``, ``node_listed``,
    ``node_left``, or ``unknown`` (of a registry with newer code)."""
    time: int
    """Unix time of the transaction."""
    lt: int
    transaction: bytes
    """Hash of the transaction."""
    version: int | None = None
    """The registry's version after it, for events that count as a change."""
    change: str = ""
    """Name of the change: ``set_release``, ``set_model``, …; empty for other events."""
    details: Details = field(default_factory=dict)
    """JSON-ready: hashes in hex, addresses in raw form, amounts in nanoton."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryHistory:
    """All events, oldest first, up to one block."""

    registry: Address
    events: tuple[RegistryEvent, ...]
    version: int
    """Changes so far, by the registry's own state."""
    seqno: int
    """Masterchain block up to which this is complete."""


async def read_history(chain: ChainReader, registry: Address) -> RegistryHistory:
    """Read the whole history of a registry up to the proved head.

    Raises:
        ChainUnavailableError: the chain does not answer, or has more transactions than can be read.
        ChainProofError: the transactions do not add up to the registry's state.
        MalformedError: there is no registry, or an event that is not understood.
    """
    head = await chain.head()
    account = await chain.account(registry, head)
    if account.data is None:
        raise MalformedError("there is no registry at this address")
    state = parse_registry(account.data)
    transactions = await chain.transactions(registry, limit=MAX_TRANSACTIONS, at=head)
    if not transactions or transactions[-1].prev_lt:
        raise ChainUnavailableError("the registry has more transactions than can be read")
    events = tuple(events_of(reversed(transactions)))
    versions = [event.version for event in events if event.version is not None]
    if versions != list(range(1, state.version + 1)):
        raise ChainProofError("the registry counted other changes than its transactions show")
    return RegistryHistory(registry=registry, events=events, version=state.version, seqno=head.seqno)


def events_of(transactions: Iterable[TransactionInfo]) -> Iterable[RegistryEvent]:
    """The events of a registry's transactions, in their order.

    Raises:
        MalformedError: an event is not understood.
    """
    for transaction in transactions:
        if transaction.prev_lt == 0:
            yield _event(transaction, "deployed")
        for message in transaction.out_msgs:
            if message.kind == "external_out":
                yield _read(transaction, message.body)


def describe_change(change: Cell) -> tuple[str, Details]:
    """Name and content of a change as governance announces it.

    Raises:
        MalformedError: not a change.
    """
    reader = Reader(change)
    tag = reader.uint(32)
    if tag not in _CHANGES:
        raise MalformedError("registry history: unknown kind of change")
    name, read = _CHANGES[tag]
    details = read(reader)
    reader.end()
    return name, details


def _read(transaction: TransactionInfo, body: Cell) -> RegistryEvent:
    reader = Reader(body)
    tag = reader.uint(32)
    if tag not in _EVENTS:
        # a registry may be upgraded; what it says then is shown, not hidden
        return _event(transaction, "unknown", details={"opcode": f"{tag:08x}"})
    event = _EVENTS[tag](transaction, reader)
    reader.end()
    return event


def _event(transaction: TransactionInfo, kind: str, **values: object) -> RegistryEvent:
    base = {"kind": kind, "time": transaction.utime, "lt": transaction.lt, "transaction": transaction.hash}
    return RegistryEvent(**(base | values))  # type: ignore[arg-type]


def _announced(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    ready_at, cell = reader.uint(32), reader.ref()
    change, details = describe_change(cell)
    more = {"ready_at": ready_at, "change_hash": bytes(cell.hash).hex()}
    return _event(transaction, "announced", change=change, details={**details, **more})


def _executed(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    version, cell = reader.uint(32), reader.ref()
    change, details = describe_change(cell)
    more = {"change_hash": bytes(cell.hash).hex()}
    return _event(transaction, "executed", version=version, change=change, details={**details, **more})


def _cancelled(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    return _event(transaction, "cancelled", details={"change_hash": reader.raw(32).hex()})


def _removed(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    version = reader.uint(32)
    details = {"what": _removal(reader.uint(8)), "id": reader.raw(32).hex()}
    return _event(transaction, "removed", version=version, details=details)


def _governance(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    version = reader.uint(32)
    details = {"governance": raw_address(reader.address())}
    return _event(transaction, "governance", version=version, details=details)


def _listed(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    node, cell, claim = reader.raw(32), reader.ref(), reader.maybe_ref()
    try:
        entry = parse_node_entry(
            node, cell, claim, listed_at=transaction.utime, updated_at=transaction.utime
        )
    except MalformedError:  # an owner chooses these bytes, and must not hide the rest of the history
        return _event(transaction, "node_listed", details={"node": node.hex(), "readable": False})
    details = {
        "node": node.hex(),
        "owner": raw_address(entry.identity.owner),
        "stake": entry.stake,
        "endpoint": entry.terms.endpoint,
        "binding_hash": None,
    }
    if entry.claim is not None:
        # without a claim the event is about stake or terms, and the key binding listed before stays
        details |= {
            "binding_hash": entry.claim.record.binding_hash.hex(),
            "release": entry.claim.release_id.hex(),
            "rule": entry.claim.rule.hex() if entry.claim.verified else None,
            "platform": entry.claim.platform_id.hex() if entry.claim.verified else None,
        }
    return _event(transaction, "node_listed", details=details)


def _left(transaction: TransactionInfo, reader: Reader) -> RegistryEvent:
    return _event(transaction, "node_left", details={"node": reader.raw(32).hex()})


_EVENTS: Final[Mapping[int, Callable[[TransactionInfo, Reader], RegistryEvent]]] = {
    opcodes.CHANGE_ANNOUNCED: _announced,
    opcodes.CHANGE_EXECUTED: _executed,
    opcodes.CHANGE_CANCELLED: _cancelled,
    opcodes.REMOVED: _removed,
    opcodes.GOVERNANCE_ACCEPTED: _governance,
    opcodes.NODE_LISTED: _listed,
    opcodes.NODE_LEFT: _left,
}


def _state(reader: Reader) -> str:
    value = reader.uint(8)
    if value not in set(EntryState):
        raise MalformedError("registry history: unknown state of an entry")
    return EntryState(value).name.lower()


def _removal(value: int) -> str:
    if value not in set(Removal):
        raise MalformedError("registry history: unknown kind of removal")
    return Removal(value).name.lower()


def _set_release(reader: Reader) -> Details:
    id, state, cell = reader.raw(32), _state(reader), reader.ref()
    try:
        release = release_from_cell(ton_to_record(cell))
    except (
        MalformedError
    ):  # the contract takes any cell with the right hash; readers leave such an entry out
        return {"release": id.hex(), "state": state, "readable": False}
    return {"release": id.hex(), "state": state, "name": release.name, "tee": release.tee.name.lower()}


def _set_model(reader: Reader) -> Details:
    digest, state, cell = reader.raw(32), _state(reader), reader.ref()
    try:
        return {"model": digest.hex(), "state": state, "name": read_text(cell)}
    except MalformedError:
        return {"model": digest.hex(), "state": state, "readable": False}


def _set_policy(reader: Reader) -> Details:
    policy = parse_policy(reader.ref())
    return {
        "tee_kinds": sorted(kind.name.lower() for kind in policy.tee_kinds),
        "statuses": sorted(policy.statuses),
        "min_tcb_evaluation": policy.min_tcb_evaluation,
        "dev_root_hash": policy.dev_root_hash.hex(),
        "recorded": {
            kind.name.lower(): policy.recorded[kind] for kind in TeeKind if kind in policy.recorded
        },
    }


def _set_parameters(reader: Reader) -> Details:
    p = parse_parameters(reader.ref())
    return {
        "min_stake": p.min_stake,
        "anchor_within": p.anchor_within,
        "challenge_window": p.challenge_window,
        "response_window": p.response_window,
        "close_delay": p.close_delay,
        "price_delay": p.price_delay,
        "max_nodes": p.max_nodes,
        "timelock": p.timelock,
        "penalty": p.penalty,
        "bounty_permille": p.bounty_permille,
        "treasury": raw_address(p.treasury),
        "pck_code": p.pck_code.hex(),
    }


def _set_codes(reader: Reader) -> Details:
    version, codes = reader.uint(16), reader.sub()
    node, channel = codes.ref(), codes.ref()
    codes.end()
    return {
        "code_version": version,
        "node_code": bytes(node.hash).hex(),
        "channel_code": bytes(channel.hash).hex(),
    }


def _allow(reader: Reader) -> Details:
    return {"what": _removal(reader.uint(8)), "id": reader.raw(32).hex()}


def _set_governance(reader: Reader) -> Details:
    return {"governance": raw_address(reader.address())}


def _upgrade(reader: Reader) -> Details:
    return {"registry_code": bytes(reader.ref().hash).hex()}


def _set_rule(reader: Reader) -> Details:
    cell = reader.ref()
    rule = parse_rule(cell)
    return {
        "rule": bytes(cell.hash).hex(),
        "fmspc": rule.fmspc.hex(),
        "evaluation": rule.evaluation,
        "valid_until": rule.valid_until,
        "anchor": rule.anchor.hex(),
    }


_CHANGES: Final[Mapping[int, tuple[str, Callable[[Reader], Details]]]] = {
    opcodes.SET_RELEASE: ("set_release", _set_release),
    opcodes.SET_MODEL: ("set_model", _set_model),
    opcodes.SET_POLICY: ("set_policy", _set_policy),
    opcodes.SET_PARAMETERS: ("set_parameters", _set_parameters),
    opcodes.SET_CODES: ("set_codes", _set_codes),
    opcodes.ALLOW: ("allow", _allow),
    opcodes.SET_GOVERNANCE: ("set_governance", _set_governance),
    opcodes.UPGRADE: ("upgrade", _upgrade),
    opcodes.SET_RULE: ("set_rule", _set_rule),
}
