"""Good input for every fuzz target, made by this project: simulated hardware, signed records, documents.

Everything is made with one seed and one time. ECDSA signatures differ from run to run; nothing depends on it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import struct
from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.bundle import Bundle
from cocoon_attestation.checkpoint import Checkpoint
from cocoon_attestation.payment import Authorization, Claim
from cocoon_attestation.policy import Policy
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_attestation.reference import Release, SnpRelease, TeeKind
from cocoon_attestation.release_document import Artifact, ReleaseDocument, Source, sign_release_document
from cocoon_attestation.sealing.keys import SealKeyPair
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.attester import make_evidence, measure
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform, SimulatedAttester
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import (
    SimulatedGpus,
    SimulatedSnpAttester,
    simulated_snp_rules,
)
from cocoon_enclave.attestation.simulated_quote import QeIdentityValues, certify, enclave_report
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

NOW = 1_800_000_000
CHALLENGE = bytes(range(32))
CONFIG_HASH = b"\x05" * 32
MODEL = b"\x07" * 32
SEAL_KEY = SealKeyPair(b"\x01" * 32)
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
GLOBAL_ID = -3
_random = seeded_random(b"fuzz samples")


@cache
def intel() -> DevPlatform:
    """A simulated TDX machine."""
    return DevPlatform.create(NOW - 86_400, _random)


@cache
def amd() -> SimulatedAmd:
    """A simulated AMD."""
    return SimulatedAmd(now=NOW, rng=_random)


@cache
def nvidia() -> SimulatedNvidia:
    """A simulated NVIDIA."""
    return SimulatedNvidia(now=NOW, rng=_random)


@cache
def one_gpu() -> SimulatedGpus:
    """One GPU."""
    return SimulatedGpus(nvidia(), [nvidia().gpu()], clock=lambda: NOW)


@cache
def snp_release() -> SnpRelease:
    """A release for SEV-SNP with one GPU."""
    measurement = hashlib.sha384(b"launch").digest()
    return SnpRelease(name="SIMULATED snp", measurement=measurement, models=(MODEL,), gpus=1)


@cache
def policy() -> Policy:
    """Accepts the evidence below."""
    return Policy(
        global_id=GLOBAL_ID,
        releases=(intel().release(), snp_release()),
        models=frozenset({MODEL}),
        min_tcb_evaluation=EVALUATION_NUMBER,
        tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
        dev_root=intel().root_der,
        snp=simulated_snp_rules(amd()),
        gpu=dataclasses.replace(nvidia().policy(gpu_count=1), gpu_count=None),
    )


def binding(release: Release | SnpRelease) -> KeyBinding:
    """The key binding of an enclave of `release`."""
    return KeyBinding(
        node=b"\x03" * 32,
        seal_key_hash=SEAL_KEY.key_id,
        receipt_key=SIGNER.public_key().public_bytes_raw(),
        tls_spki_hash=b"\x04" * 32,
        config_hash=CONFIG_HASH,
        release_id=release.release_id,
        not_before=NOW - 60,
        not_after=NOW + 3600,
        global_id=GLOBAL_ID,
    )


@cache
def tdx_evidence() -> bytes:
    """Evidence of a TDX node with one GPU."""
    attester = SimulatedAttester(intel(), clock=lambda: NOW)
    measure(attester, config_hash=CONFIG_HASH, models=[MODEL], gpu=one_gpu().summary(b"\x0b" * 32))
    return make_evidence(
        attester,
        binding=binding(intel().release()),
        seal_public_key=SEAL_KEY.public_key,
        challenge=CHALLENGE,
        devices=one_gpu().evidence,
    )


@cache
def snp_evidence() -> bytes:
    """Evidence of an SEV-SNP node with one GPU."""
    return make_evidence(
        SimulatedSnpAttester(amd(), snp_release(), config_hash=CONFIG_HASH),
        binding=binding(snp_release()),
        seal_public_key=SEAL_KEY.public_key,
        challenge=CHALLENGE,
        devices=one_gpu().evidence,
    )


@cache
def tdx_quotes() -> tuple[bytes, ...]:
    """A TDX quote, and the same with unsigned bytes behind it."""
    quote = intel().quote(intel().td_report(bytes(range(64)), b"\x11" * 48))
    return quote, quote + bytes(16)


@cache
def sgx_quote() -> bytes:
    """An SGX quote of version 3."""
    machine = intel()
    identity = dataclasses.replace(machine.quoting_enclave, isv_prod_id=1)
    attributes = bytes.fromhex("0500000000000000e700000000000000")
    body = enclave_report(
        QeIdentityValues(mrsigner=b"\x77" * 32, cpu_svn=identity.cpu_svn, attributes=attributes),
        bytes(range(64)),
    )
    vendor = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
    signed = bytes.fromhex("03000200") + bytes(8) + vendor + bytes(20) + body
    key = machine.attestation_key
    section = pki.sign_raw(key, signed) + pki.raw_public_key(key)
    section += certify(
        attestation_key=key, chain=(machine.pck, machine.platform_ca, machine.root), identity=identity
    )
    return signed + len(section).to_bytes(4, "little") + section


@cache
def collateral() -> dict[str, str]:
    """Collateral in the field names of QuoteCollateralV3."""
    return {
        field.name: value.hex() if isinstance(value, bytes) else value
        for field, value in intel().collateral(NOW).ListFields()
    }


def collateral_json() -> bytes:
    """Collateral as a file."""
    return json.dumps(collateral()).encode()


@cache
def gpu_device() -> evidence_pb2.DeviceEvidence:
    """Evidence of one GPU."""
    return one_gpu().evidence(CHALLENGE)[0]


@cache
def switch_report() -> bytes:
    """Report of one NVLink switch."""
    return nvidia().switch(gpu_pdis=[bytes((i,)) * 8 for i in range(8)]).report(CHALLENGE)


def gpu_list() -> bytes:
    """NVIDIA's JSON evidence of one GPU."""
    device = gpu_device()
    entry = {
        "arch": "HOPPER",
        "nonce": CHALLENGE.hex(),
        "certificate": base64.b64encode(device.certificate_chain.encode()).decode(),
        "evidence": base64.b64encode(device.report).decode(),
    }
    return json.dumps([entry]).encode()


def ccel_log() -> bytes:
    """A small boot log in the crypto-agile form."""
    header = struct.pack("<II20sI", 1, 3, bytes(20), 33) + b"Spec ID Event03\x00" + bytes(4)
    header += bytes.fromhex("00020002010000000c00300000")
    log = header
    for register, kind, data in ((1, 0x8000_0001, b"SecureBoot"), (1, 4, bytes(4)), (2, 4, bytes(4))):
        log += struct.pack("<IIIH", register, kind, 1, 0x0C) + hashlib.sha384(data).digest()
        log += struct.pack("<I", len(data)) + data
    return log + b"\xff" * 32


def dstack_log(*, nested: bool = False) -> bytes:
    """A log of a dstack agent; `nested`: as text inside an object."""
    boot = {
        "imr": 0,
        "event_type": 4,
        "digest": hashlib.sha384(bytes(4)).hexdigest(),
        "event": "",
        "event_payload": "00000000",
    }
    runtime = {
        "imr": 3,
        "event_type": 0x0800_0001,
        "digest": "00" * 48,
        "event": "compose-hash",
        "event_payload": "ab" * 32,
    }
    events = [boot, runtime, runtime | {"event": "system-ready", "event_payload": ""}]
    return json.dumps({"event_log": json.dumps(events)} if nested else events).encode()


def records() -> Sequence[bytes]:
    """One cell of every record."""
    return (
        binding(intel().release()).to_boc(),
        receipt().to_boc(),
        Checkpoint(
            global_id=GLOBAL_ID, node=b"\x03" * 32, tree_size=6, root=b"\x09" * 32, issued_at=NOW
        ).to_boc(),
        Authorization(global_id=GLOBAL_ID, channel=b"\x06" * 32, cap=10**9, valid_until=NOW + 60).to_boc(),
        Claim(global_id=GLOBAL_ID, channel=b"\x06" * 32, used=12345, index=3).to_boc(),
        intel().release().to_boc(),
        snp_release().to_boc(),
        dataclasses.replace(snp_release(), models=tuple(bytes([n]) * 32 for n in range(7))).to_boc(),
    )


def receipt() -> Receipt:
    """A receipt."""
    return Receipt(
        node=b"\x03" * 32,
        binding_hash=b"\x08" * 32,
        request_commitment=b"\x0a" * 32,
        response_commitment=b"\x0b" * 32,
        model=MODEL,
        prompt_tokens=9,
        cached_tokens=4,
        completion_tokens=2,
        status=200,
        channel=b"\x06" * 32,
        amount=10,
        cumulative=100,
        index=3,
        issued_at=NOW,
        anchor_by=NOW + 3600,
    )


def bundle() -> bytes:
    """A bundle whose parts have the right form."""
    signed = sign_receipt(receipt(), SIGNER)
    return Bundle(
        network="devnet",
        global_id=GLOBAL_ID,
        registry="-1:" + "ab" * 32,
        receipt=signed.receipt,
        receipt_signature=signed.signature,
        leaf_index=3,
        tree_size=6,
        hashes=(b"\x01" * 32, b"\x02" * 32),
        evidence=b"evidence",
        chain={"v": 1, "links": []},
        salt=b"\x51" * 32,
        request=b"{}",
        response=b"{}",
        checkpoint=records()[2],
        checkpoint_signature=SIGNER.sign(b"x"),
    ).to_json()


def release_envelopes() -> Sequence[bytes]:
    """Signed release documents of both kinds."""
    documents = (
        ReleaseDocument(
            release=intel().release(),
            issued_at=NOW - 60,
            expires_at=NOW + 60,
            source=Source(uri="git+https://example.org/cocoon.git", commit=b"\x08" * 20),
            artifacts=(Artifact(name="cocoon.img", sha256=b"\x09" * 32),),
        ),
        ReleaseDocument(release=snp_release(), issued_at=NOW),
    )
    return [sign_release_document(document, [SIGNER]) for document in documents]


def policy_toml() -> bytes:
    """A policy that uses every table."""
    release = intel().release()
    values = "\n".join(
        f'{name} = "{getattr(release, name).hex()}"'
        for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")
    )
    return f"""global_id = -3
min_tcb_evaluation = 18
models = ["{MODEL.hex()}"]
statuses = ["UpToDate", "SWHardeningNeeded"]
allowed_platforms = ["{"07" * 32}"]
session_limit_s = 300
tee_kinds = ["tdx", "sev-snp"]
[snp]
products = ["genoa"]
[gpu]
gpu_count = 8
[[releases]]
name = "one"
tee = "tdx"
{values}
[[releases]]
name = "two"
tee = "sev-snp"
measurement = "{"01" * 48}"
models = ["{MODEL.hex()}"]
gpus = 8
""".encode()


def rules_toml() -> bytes:
    """Client rules with every kind of value."""
    return b"""version = 1
rules = [
  { tee_is = ["tdx"] },
  { any_of = [ { platform_in = ["%b"] }, { gpu_serial_in = ["41"] }, { gpu_count_at_least = 8 } ] },
  { all_of = [ { simulated_is = false }, { nvlink_encrypted = true }, { unsafe_no_op = "why" } ] },
]
""" % (b"07" * 32)
