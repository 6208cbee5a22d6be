"""Roots of simulated vendors inside the development root: round trip, strictness, what a policy makes of them."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.dev_roots import EXTENSION, MAX_BYTES, DevRoots, encode_dev_roots, read_dev_roots
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.snp.report import Product
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated_gpu_pki import make_authority, seeded_random
from cocoon_enclave.attestation.simulated_vendors import DevVendors

NOW = 1_800_000_000


def _random(name: bytes) -> pki.Random:
    counter = itertools.count()
    return lambda size: hashlib.shake_256(name + next(counter).to_bytes(4)).digest(size)


@functools.cache
def other_root(number: int) -> bytes:
    start = dt.datetime.fromtimestamp(NOW, dt.UTC)
    return make_authority(f"root {number}", None, start=start, rng=seeded_random(bytes([number]))).der


def root(*values: bytes) -> bytes:
    """A development root whose extension has this value; none without one."""
    extra: Sequence[x509.UnrecognizedExtension] = [x509.UnrecognizedExtension(EXTENSION, v) for v in values]
    made = pki.make_ca(
        pki.ROOT_NAME, parent=None, path_length=1, now=NOW, years=1, rng=_random(b"r"), extra=extra
    )
    return made.certificate.public_bytes(Encoding.DER)


ALL = DevRoots(
    amd={Product.GENOA: other_root(1), Product.TURIN: other_root(2)},
    nvidia_device=other_root(3),
    nvidia_rim=other_root(4),
)


@pytest.mark.parametrize(
    "roots",
    [
        ALL,
        DevRoots(amd={}),
        DevRoots(amd={Product.MILAN: other_root(1)}),
        DevRoots(amd={}, nvidia_rim=other_root(4)),
    ],
)
def test_round_trip(roots: DevRoots) -> None:
    assert read_dev_roots(root(encode_dev_roots(roots))) == roots


def test_a_root_without_the_extension_names_no_vendor() -> None:
    found = read_dev_roots(root())
    assert found == DevRoots(amd={})
    assert found.snp is None
    assert found.gpu is None


def test_gpus_need_both_roots() -> None:
    assert DevRoots(amd={}, nvidia_device=other_root(3)).gpu is None
    assert DevRoots(amd={}, nvidia_rim=other_root(3)).gpu is None


def test_a_policy_takes_them_as_development_roots(lab: Any) -> None:
    der = root(encode_dev_roots(ALL))
    found = read_dev_roots(der)
    policy: Policy = lab.policy(dev_root=der, tee_kinds=frozenset(TeeKind), snp=found.snp, gpu=found.gpu)
    assert policy.snp is not None
    assert policy.gpu is not None
    assert policy.simulated
    assert {(r.product, r.der, r.simulated) for r in policy.snp.roots} == {
        (product, der, True) for product, der in ALL.amd.items()
    }
    assert policy.gpu.device_roots == {other_root(3)}
    assert policy.gpu.rim_roots == {other_root(4)}
    assert policy.gpu.gpu_count is None
    with pytest.raises(Exception, match="do not mix"):
        lab.policy(dev_root=None, snp=found.snp)


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    head = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2)
    return bytes([tag]) + head + content


def listed(*entries: tuple[bytes, bytes]) -> bytes:
    inner = b"".join(der(0x30, der(0x0C, kind) + der(0x04, value)) for kind, value in entries)
    return der(0x30, der(0x30, inner))


def test_forms_that_are_refused() -> None:
    good = (b"amd-genoa", other_root(1))
    assert read_dev_roots(root(listed(good))).amd == {Product.GENOA: other_root(1)}
    refused = [
        b"",
        b"\x05\x00",
        listed(good) + b"\x00",
        listed(good)[:-1],
        listed(good, good),
        listed((b"amd-rome", other_root(1))),
        listed((b"intel", other_root(1))),
        listed((b"amd-genoa", b"not a certificate")),
        listed((b"nvidia-rim", other_root(1) + b"\x00")),
        listed(*[(b"amd-genoa%d" % number, other_root(1)) for number in range(9)]),
        bytes(MAX_BYTES + 1),
    ]
    for value in refused:
        with pytest.raises(MalformedError):
            read_dev_roots(root(value))
    for certificate in (b"", b"\x30\x00", other_root(1)[:-1], bytes(40_000)):
        with pytest.raises(MalformedError):
            read_dev_roots(certificate)


@given(st.binary(max_size=200))
def test_any_value_is_read_or_malformed(value: bytes) -> None:
    try:
        found = read_dev_roots(root(value))
    except MalformedError:
        return
    assert encode_dev_roots(found) == value


def test_the_vendors_of_a_platform() -> None:
    vendors = DevVendors.create(NOW, _random(b"vendors"))
    found = read_dev_roots(root(encode_dev_roots(vendors.roots)))
    assert found == vendors.roots
    assert set(found.amd) == {Product.GENOA}
    assert found.gpu is not None
