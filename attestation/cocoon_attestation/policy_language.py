"""Client rules: a small language of combinators over the result of an appraisal.

`appraise` decides whether an enclave is acceptable to the network. A client may demand more ("this
operator's machines, or any machine with up-to-date firmware and these GPUs"): that is a tree of `AllOf`,
`AnyOf` and leaf checks. It takes a `VerifiedEnclave`, so it can only refuse what was accepted before and
never accept what was refused. A fact that an enclave does not have fails the rule that asks for it.
The TOML form is read by `policy_language_toml`. See docs/spec/policy-language.md.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.verified import VerifiedEnclave

LANGUAGE_VERSION: Final = 1
MAX_DEPTH: Final = 8
"""Deepest nesting of combinators, the implicit outer one included."""
MAX_RULES: Final = 256
"""Most rules in one tree, combinators included."""
_SPEC: Final = "docs/spec/policy-language.md#"


class UnsafePolicyWarning(UserWarning):
    """A rule was written that checks nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Outcome of one rule."""

    id: str
    ok: bool
    detail: str
    children: tuple[Finding, ...] = ()
    """Outcomes of the rules below; only `AllOf` lists them as checks of their own."""


class Rule(Protocol):
    """A condition on a verified enclave."""

    name: ClassVar[str]
    """Key in the TOML form; the check id is ``client.<name>``."""

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge one enclave."""
        ...

    def to_plain(self) -> object:
        """The rule's value as JSON-ready data, sets sorted."""
        ...


@dataclass(frozen=True, slots=True, init=False)
class AllOf:
    """Every rule must hold. An empty one is a `ConfigError`: it would accept everything."""

    name: ClassVar[str] = "all_of"
    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        object.__setattr__(self, "rules", _not_empty(rules, "all_of"))

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge every rule, also after one failed, so that a refusal names every fault."""
        found = tuple(rule.find(enclave) for rule in self.rules)
        failed = sum(not one.ok for one in found)
        detail = f"{failed} of {len(found)} rules failed" if failed else f"all {len(found)} rules hold"
        return Finding(id="client.all_of", ok=not failed, detail=detail, children=found)

    def to_plain(self) -> object:
        """The rules in their order."""
        return [{rule.name: rule.to_plain()} for rule in self.rules]


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """At least one rule must hold. An empty one is a `ConfigError`: it could accept nothing."""

    name: ClassVar[str] = "any_of"
    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        object.__setattr__(self, "rules", _not_empty(rules, "any_of"))

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Judge every rule; the detail says which of them held."""
        found = tuple(rule.find(enclave) for rule in self.rules)
        held = [one for one in found if one.ok]
        detail = f"held: {held[0].id} ({held[0].detail})" if held else f"none of {len(found)} held: "
        if not held:
            detail += "; ".join(f"{one.id} ({one.detail})" for one in found)
        return Finding(id="client.any_of", ok=bool(held), detail=detail, children=found)

    def to_plain(self) -> object:
        """The rules in their order."""
        return [{rule.name: rule.to_plain()} for rule in self.rules]


@dataclass(frozen=True, slots=True)
class UnsafeNoOp:
    """Checks nothing and holds always. Warns when it is made; every result says UNSAFE.

    For trying a tree out. In an `AnyOf` it switches the whole alternative off.
    """

    name: ClassVar[str] = "unsafe_no_op"
    reason: str
    """Why somebody wanted this, for people; not empty."""

    def __post_init__(self) -> None:
        """Warn; raises `ConfigError` without a reason."""
        if not self.reason.strip():
            raise ConfigError("policy language: unsafe_no_op needs a reason")
        warnings.warn(
            f"the client rule unsafe_no_op checks nothing ({self.reason})",
            UnsafePolicyWarning,
            stacklevel=3,
        )

    def find(self, enclave: VerifiedEnclave) -> Finding:
        """Hold."""
        return Finding(
            id="client.unsafe_no_op", ok=True, detail=f"UNSAFE: nothing was checked ({self.reason})"
        )

    def to_plain(self) -> object:
        """The reason."""
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules:
    """A whole tree, ready to be asked."""

    rules: AllOf

    def __post_init__(self) -> None:
        """Check the size of the tree; raises `ConfigError`."""
        if sum(1 for _ in _walk(self.rules, 1)) > MAX_RULES:
            raise ConfigError(f"policy language: more than {MAX_RULES} rules")

    @property
    def digest(self) -> bytes:
        """H("cocoon/v1/policy-language" ‖ canonical JSON of `to_dict`), 32 bytes."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(b"cocoon/v1/policy-language" + text.encode("ascii")).digest()

    @property
    def unsafe(self) -> tuple[str, ...]:
        """The reason of every rule that checks nothing; whoever uses the rules shows them."""
        return tuple(rule.reason for rule in _walk(self.rules, 1) if isinstance(rule, UnsafeNoOp))

    def to_dict(self) -> dict[str, object]:
        """The tree as a JSON-ready object."""
        return {"version": LANGUAGE_VERSION, "rules": self.rules.to_plain()}

    def evaluate(self, enclave: VerifiedEnclave) -> CheckList:
        """Judge an enclave: one check for each rule outside of an `AnyOf`, one for each `AnyOf`."""
        checks = CheckList()
        for finding in _flat(self.rules.find(enclave)):
            checks.record(finding.id, finding.ok, finding.detail, spec=_SPEC + finding.id)
        return checks

    def require(self, enclave: VerifiedEnclave) -> CheckList:
        """Like `evaluate`, for an enclave that must pass; returns the checks of the rules.

        Raises:
            EvidenceRejectedError: a rule does not hold; `checks` has those of the appraisal and then all of
                the rules.
        """
        found = self.evaluate(enclave)
        if not found.accepted:
            first = found.failed[0]
            checks = CheckList([*enclave.checks, *found])
            raise EvidenceRejectedError(
                f"refused by the client's own rules: {first.id}: {first.detail}",
                checks=checks,
                hint="the network accepts this enclave; your rules file does not",
                details={"failed": [check.id for check in checks.failed], "rules": self.digest.hex()},
            )
        return found


def _flat(finding: Finding) -> Iterator[Finding]:
    """The checks of a finding. What failed inside a satisfied `AnyOf` must not fail the list."""
    if finding.id == "client.all_of":
        for child in finding.children:
            yield from _flat(child)
    else:
        yield finding


def _walk(rule: Rule, depth: int) -> Iterator[Rule]:
    if depth > MAX_DEPTH:
        raise ConfigError(f"policy language: nested deeper than {MAX_DEPTH}")
    yield rule
    if isinstance(rule, (AllOf, AnyOf)):
        for child in rule.rules:
            yield from _walk(child, depth + 1)


def _not_empty(rules: Sequence[Rule], name: str) -> tuple[Rule, ...]:
    if not rules:
        raise ConfigError(
            f"policy language: {name} is empty", hint="name at least one rule, or leave it out"
        )
    return tuple(rules)
