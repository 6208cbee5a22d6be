"""Edges of a policy's limits, and what tightening must leave alone. Found by mutation tests."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.policy import OPTIONAL_STATUSES, UP_TO_DATE
from cocoon_attestation.policy_toml import policy_from_toml

ID = b"\x07" * 32
OTHER = b"\x08" * 32


def test_tightening_something_else_keeps_the_list_of_platforms(lab: Any) -> None:
    policy = lab.policy(allowed_platforms=frozenset({ID}), denied_platforms=frozenset({OTHER}))
    for tightened in (policy.tightened(), policy.tightened(min_tcb_evaluation=99, session_limit_s=5)):
        assert tightened.allowed_platforms == frozenset({ID})
        assert tightened.denied_platforms == frozenset({OTHER})
        assert tightened.models == policy.models
        assert tightened.releases == policy.releases


def test_lists_of_platforms_are_intersected(lab: Any) -> None:
    listed = lab.policy(allowed_platforms=frozenset({ID}))
    assert listed.tightened(allowed_platforms=[ID, OTHER]).allowed_platforms == frozenset({ID})
    assert lab.policy().tightened(allowed_platforms=[OTHER]).allowed_platforms == frozenset({OTHER})
    assert lab.policy().tightened().allowed_platforms is None
    with pytest.raises(ConfigError):
        listed.tightened(allowed_platforms=[OTHER])


def test_every_status_that_may_be_allowed_at_once(lab: Any) -> None:
    every = OPTIONAL_STATUSES | {UP_TO_DATE}
    assert lab.policy(statuses=every).statuses == every
    with pytest.raises(ConfigError) as caught:
        lab.policy(statuses=every | {"OutOfDate"})
    assert caught.value.hint == "allowed: " + ", ".join(sorted(every))


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("global_id", -(2**31), True),
        ("global_id", -(2**31) - 1, False),
        ("global_id", 2**31 - 1, True),
        ("global_id", 2**31, False),
        ("min_tcb_evaluation", 1, True),
        ("min_tcb_evaluation", 0, False),
        ("max_collateral_age_s", 1, True),
        ("max_collateral_age_s", 0, False),
        ("session_limit_s", 1, True),
        ("session_limit_s", 0, False),
        ("clock_skew_s", 0, True),
        ("clock_skew_s", -1, False),
    ],
)
def test_numbers_at_their_limits(lab: Any, name: str, value: int, good: bool) -> None:
    if good:
        assert getattr(lab.policy(**{name: value}), name) == value
    else:
        with pytest.raises(ConfigError):
            lab.policy(**{name: value})


@pytest.mark.parametrize("key", ["allowed_modules", "allowed_platforms"])
def test_empty_list_in_a_file_is_not_everything(key: str) -> None:
    measured = f'measurement = "{"01" * 48}", models = ["{"05" * 32}"]'
    text = (
        f'global_id = -3\nmin_tcb_evaluation = 1\nmodels = ["{"05" * 32}"]\n'
        f'releases = [{{ name = "one", tee = "sev-snp", {measured} }}]\n'
    )
    assert policy_from_toml(text)
    with pytest.raises(ConfigError, match="allows nothing"):
        policy_from_toml(text + f"{key} = []\n")
