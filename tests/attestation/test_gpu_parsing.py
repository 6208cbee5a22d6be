"""Parsers of GPU evidence: any bytes give a value or `MalformedError`, and XML tricks gain nothing."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import importlib
import json
import subprocess
import sys
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_attestation.gpu import evidence as gpu_evidence
from cocoon_attestation.gpu import rim as rim_module
from cocoon_attestation.gpu.certificates import device_identity, parse_der_chain, parse_pem_chain
from cocoon_attestation.gpu.evidence import parse_evidence_list
from cocoon_attestation.gpu.ocsp import MAX_RESPONSE, parse_ocsp
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.report import MAX_REPORT, Opaque, parse_gpu_report
from cocoon_attestation.gpu.rim import MAX_RIM, Rim, parse_rim, rim_chain_problem, verify_rim
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import chain_pem, seeded_random
from cocoon_enclave.attestation.simulated_rim import make_rim

etree: Any = importlib.import_module("lxml.etree")
signxml: Any = importlib.import_module("signxml")

AT = dt.datetime.fromtimestamp(1_800_000_000, dt.UTC)
NONCE = b"\x4e" * 32
VENDOR = SimulatedNvidia(now=1_800_000_000, rng=seeded_random(b"parsing"))
GPU = VENDOR.gpu()
REPORT = GPU.report(NONCE)
DRIVER_RIM = VENDOR.gpu_rims[0]
DS = "{http://www.w3.org/2000/09/xmldsig#}"
SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"


def opaque(**changes: bytes) -> bytes:
    records: dict[int, bytes] = dict(GPU.opaque)
    records.update({Opaque[name]: value for name, value in changes.items()})
    return dataclasses.replace(GPU, opaque=records).report(NONCE)


def test_simulated_report_parses() -> None:
    report = parse_gpu_report(REPORT)
    assert report.nonce == NONCE
    assert report.measurements == GPU.measurements
    assert (report.driver_version, report.vbios_version) == ("590.12", "96.00.A5.00.01")
    assert report.gpu_pdis == ()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_report_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_gpu_report(data)


@settings(max_examples=300)
@given(st.integers(0, len(REPORT) - 1), st.integers(1, 255), st.integers(0, 4))
def test_any_changed_report_is_a_report_or_malformed(offset: int, change: int, cut: int) -> None:
    data = bytearray(REPORT)
    data[offset] ^= change
    try:
        report = parse_gpu_report(bytes(data[: len(data) - cut]))
    except MalformedError:
        return
    assert cut == 0
    assert report.signed + report.signature == bytes(data)
    _ = (report.driver_version, report.vbios_version, report.project, report.chip_name, report.chip_sku)


@pytest.mark.parametrize(
    "data",
    [
        b"\x12" + REPORT[1:],
        REPORT[:1] + b"\xe1" + REPORT[2:],
        REPORT[:3] + b"\x01" + REPORT[4:],
        REPORT[:37] + b"\x12" + REPORT[38:],
        REPORT[:38] + b"\x7f" + REPORT[39:],
        REPORT[:41] + b"\x3f" + REPORT[42:],
        REPORT[:42] + b"\xff\xff\xff" + REPORT[45:],
        REPORT + b"\x01",
        REPORT + b"\x00\x00",
        REPORT + bytes(MAX_REPORT),
    ],
)
def test_frame_must_be_exact(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_gpu_report(data)


@pytest.mark.parametrize("offset", [45, 46, 47, 50])
def test_blocks_must_be_exact(offset: int) -> None:
    data = bytearray(REPORT)
    data[offset] ^= 0x40
    with pytest.raises(MalformedError, match="measurement block"):
        parse_gpu_report(bytes(data))


@pytest.mark.parametrize(
    "changes",
    [
        {"FWID": bytes(47)},
        {"NVDEC0_STATUS": b"\x00"},
        {"NVDEC0_STATUS": b"\xaa\xaa"},
        {"PPCIE_STATUS": b"\x01"},
        {"SWITCH_PDI": bytes(16)},
        {"OPAQUE_VERSION": b"\x01"},
        {"FEATURE_FLAG": bytes(4)},
        {"DRIVER_VERSION": b"590\n.12\x00"},
        {"DRIVER_VERSION": b"\xd9\xa5\x00"},
        {"DRIVER_VERSION": b"5" * 65},
        {"PROJECT": b"G5\x0020\x00"},
        {"CHIP_NAME": b"<GB100>"},
        {"VBIOS_VERSION": b"96.00/A5"[:7]},
    ],
)
def test_opaque_records_must_have_their_form(changes: dict[str, bytes]) -> None:
    with pytest.raises(MalformedError, match="opaque record"):
        parse_gpu_report(opaque(**changes))


def test_repeated_and_overlong_opaque_records() -> None:
    record = b"\x22\x00\x02\x00\x01\x00"
    assert record in REPORT
    repeated = REPORT.replace(b"\x24\x00\x02\x00\x00\x00", record)
    with pytest.raises(MalformedError, match="repeated"):
        parse_gpu_report(repeated)
    overlong = REPORT.replace(b"\x24\x00\x02\x00\x00\x00", b"\x24\x00\x03\x00\x00\x00")
    with pytest.raises(MalformedError, match="ends too early"):
        parse_gpu_report(overlong)


def test_unknown_opaque_records_are_kept_and_not_read() -> None:
    report = parse_gpu_report(
        dataclasses.replace(GPU, opaque={**GPU.opaque, 999: b"anything"}).report(NONCE)
    )
    assert report.opaque[999] == b"anything"


def test_chain_parsers_have_limits() -> None:
    pem = chain_pem(GPU.chain)
    assert len(parse_pem_chain(pem)) == 5
    for data in (b"", pem * 2, b"x" * 70_000):
        with pytest.raises(MalformedError):
            parse_pem_chain(data)
    for ders in ([], [b"\x30\x00"], [GPU.chain[0].der] * 9, [bytes(70_000)]):
        with pytest.raises(MalformedError):
            parse_der_chain(ders)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GPU.chain[0].der) - 1), st.integers(1, 255))
def test_any_changed_certificate_is_a_chain_or_malformed(offset: int, change: int) -> None:
    der = bytearray(GPU.chain[0].der)
    der[offset] ^= change
    try:
        chain = parse_der_chain([bytes(der), *(one.der for one in GPU.chain[1:])])
        device_identity(chain)
    except MalformedError:
        return


def test_cut_chain_is_too_short() -> None:
    cut = parse_pem_chain(chain_pem(GPU.chain)[:-30])
    with pytest.raises(MalformedError, match="5 certificates"):
        device_identity(cut)


def test_device_chain_must_name_one_chip() -> None:
    switch = VENDOR.switch()
    mixed = (switch.chain[0], *GPU.chain[1:])
    for chain in (mixed, GPU.chain[1:] + GPU.chain[:1], GPU.chain[:4]):
        with pytest.raises(MalformedError):
            device_identity([one.certificate for one in chain])


@given(st.binary(max_size=400))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_ocsp(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_answer_is_an_answer_or_malformed(data: st.DataObject) -> None:
    raw = bytearray(ANSWER)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        parse_ocsp(bytes(raw))
    except MalformedError:
        return


ANSWER = VENDOR.answer(GPU.chain[1].certificate, GPU.chain[2], NONCE, AT)


def test_answers_have_limits() -> None:
    with pytest.raises(MalformedError, match="too long"):
        parse_ocsp(bytes(MAX_RESPONSE + 1))
    with pytest.raises(MalformedError, match="does not decode"):
        parse_ocsp(bytes(MAX_RESPONSE))
    unsuccessful = x509.ocsp.OCSPResponseBuilder.build_unsuccessful(x509.ocsp.OCSPResponseStatus.TRY_LATER)
    with pytest.raises(MalformedError, match="no answer"):
        parse_ocsp(unsuccessful.public_bytes(Encoding.DER))


# --- manifests -----------------------------------------------------------------------------------


def verified(data: bytes) -> Rim | str:
    """Values of a manifest if its signer is the simulated vendor's."""
    parsed = parse_rim(data)
    problem = rim_chain_problem(parsed.chain, {VENDOR.rim_root.der}, AT)
    return problem if problem is not None else verify_rim(parsed)


def test_simulated_manifest_is_read() -> None:
    rim = verified(DRIVER_RIM)
    assert isinstance(rim, Rim)
    assert rim.version == "590.12"
    assert set(rim.active) == {6, 9, 17, 22}


def test_the_tree_that_was_read_is_the_one_that_is_verified() -> None:
    parsed = parse_rim(DRIVER_RIM)
    first, second = verify_rim(parsed), verify_rim(parsed)
    assert isinstance(first, Rim)
    assert first == second  # verifying changed nothing in the tree
    parsed.root.set("name", "GH200")
    assert verify_rim(parsed) == "the XML signature is wrong (InvalidDigest)"


@pytest.mark.parametrize(
    "document",
    [
        b'<!DOCTYPE x [<!ENTITY e "1">]>' + DRIVER_RIM,
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + DRIVER_RIM,
        b'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/x"> %p;]>' + DRIVER_RIM,
        DRIVER_RIM.replace(b"</SoftwareIdentity>", b"<!-- x --></SoftwareIdentity>"),
        DRIVER_RIM.replace(b"</SoftwareIdentity>", b"<?x y?></SoftwareIdentity>"),
        b"<SoftwareIdentity/>",
        b"<x>" * 300 + b"</x>" * 300,
        b"",
        b"\x00",
        b"not xml",
        bytes(MAX_RIM + 1),
        b'<?xml version="1.0" encoding="utf-16"?>' + DRIVER_RIM,
    ],
)
def test_document_tricks_are_malformed(document: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_rim(document)


def test_entity_bomb_is_refused_without_being_expanded() -> None:
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "ha">{levels}]>'.encode()
    with pytest.raises(MalformedError):
        parse_rim(bomb + DRIVER_RIM.replace(b"SIMULATED vendor", b"&e11;"))


def wrapped() -> bytes:
    """The signed document moved into a corner of a new one with other values."""
    genuine = etree.fromstring(DRIVER_RIM)
    signature = genuine.find(f"./{DS}Signature")
    evil = etree.fromstring(DRIVER_RIM.replace(GPU.measurements[9].hex().encode(), b"01" * 48))
    evil.remove(evil.find(f"./{DS}Signature"))
    corner = etree.SubElement(evil, f"{SWID}Link")
    corner.append(genuine)
    evil.append(signature)
    return bytes(etree.tostring(evil))


def test_signature_wrapping_gains_nothing() -> None:
    assert isinstance(verified(wrapped()), str)


def test_reference_to_a_part_of_the_document_gains_nothing() -> None:
    root = etree.fromstring(DRIVER_RIM)
    root.find(f"./{DS}Signature/{DS}SignedInfo/{DS}Reference").set("URI", "#part")
    root.find(f"./{SWID}Payload").set("Id", "part")
    assert isinstance(verified(bytes(etree.tostring(root))), str)


def test_second_signature_gains_nothing() -> None:
    root = etree.fromstring(DRIVER_RIM)
    root.append(etree.fromstring(DRIVER_RIM).find(f"./{DS}Signature"))
    # Eight certificates from two signatures are not one chain.
    assert isinstance(verified(bytes(etree.tostring(root))), str)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ecdsa-sha384", b"ecdsa-sha256"),
        (b"ecdsa-sha384", b"hmac-sha256"),
        (b"xmldsig-more#sha384", b"xmldsig#sha1"),
        (b'URI=""', b'URI="http://127.0.0.1:1/"'),
        (b'URI=""', b""),
    ],
)
def test_other_algorithms_and_references_are_refused(old: bytes, new: bytes) -> None:
    assert old in DRIVER_RIM
    try:
        assert isinstance(verified(DRIVER_RIM.replace(old, new)), str)
    except MalformedError:
        return


def test_manifest_signed_by_an_impostor_of_the_same_name() -> None:
    impostor = SimulatedNvidia(now=1_800_000_000, rng=seeded_random(b"impostor"))
    assert isinstance(verified(impostor.gpu_rims[0]), str)


def test_certificates_of_the_vendor_with_a_foreign_signature() -> None:
    """The chain in the document is genuine, the signature was made with another key."""
    chain = VENDOR.rim_chain
    other = dataclasses.replace(chain[0], key=GPU.chain[0].key)
    forged = make_rim(
        chip="GH100", version="590.12", values={0: (bytes(48),)}, signer_chain=(other, *chain[1:])
    )
    assert isinstance(verified(forged), str)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('active="True"', 'active="true"'),
        ('index="6"', 'index="7"'),
        ('index="6"', 'index="-1"'),
        ('index="6"', 'index="999"'),
        ('size="48"', 'size="32"'),
        ('alternatives="1"', 'alternatives="2"'),
        ('alternatives="1"', 'alternatives="0"'),
        ('type="Measurement"', 'type="File"'),
        ('FirmwareManufacturerId="5703"', 'FirmwareManufacturerId="1"'),
        ('colloquialVersion="590.12"', 'colloquialVersion=""'),
        ('name="GH100"', 'name=""'),
        ("Payload", "Load"),
        ('Hash0="', 'Hash0="zz'),
        (f'Hash0="{GPU.measurements[6].hex()[:2]}', 'Hash0="'),
    ],
)
def test_signed_nonsense_is_malformed(old: str, new: str) -> None:
    """Even a document with a good signature must have the form of a manifest."""
    root = etree.fromstring(DRIVER_RIM)
    root.remove(root.find(f"./{DS}Signature"))
    text = etree.tostring(root).decode()
    assert old in text
    edited = etree.fromstring(text.replace(old, new))
    signed = signxml.XMLSigner(
        method=signxml.SignatureConstructionMethod.enveloped,
        signature_algorithm=signxml.SignatureMethod.ECDSA_SHA384,
        digest_algorithm=signxml.DigestAlgorithm.SHA384,
    ).sign(
        edited,
        key=VENDOR.rim_chain[0].key,
        cert=[chain_pem([one]).decode() for one in VENDOR.rim_chain],
    )
    with pytest.raises(MalformedError):
        verified(bytes(etree.tostring(signed)))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml.etree", None)
    with pytest.raises(UnsupportedError) as caught:
        rim_module.parse_rim(DRIVER_RIM)
    assert "cocoon-network[gpu]" in caught.value.hint


def test_importing_the_verifier_does_not_import_xml_packages() -> None:
    code = "import sys, cocoon_attestation.gpu.verify; sys.exit('signxml' in sys.modules or 'lxml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# --- JSON list -----------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    one = {
        "arch": "HOPPER",
        "certificate": base64.b64encode(chain_pem(GPU.chain)).decode(),
        "evidence": base64.b64encode(REPORT).decode(),
        "nonce": NONCE.hex(),
    }
    return {**one, **changes}


def test_list_and_object_forms_are_read() -> None:
    plain = parse_evidence_list(json.dumps([entry(), entry(arch="LS10")]).encode())
    assert [one.kind for one in plain] == [DeviceKind.GPU, DeviceKind.SWITCH]
    assert plain[0].report == REPORT
    bare = entry()
    del bare["arch"]
    wrapped_list = parse_evidence_list(json.dumps({"arch": "HOPPER", "evidence_list": [bare]}).encode())
    assert wrapped_list == plain[:1]
    spaced = entry(arch="Hopper", evidence=base64.encodebytes(REPORT).decode())
    for document in (entry(), [spaced]):
        assert parse_evidence_list(b"\xef\xbb\xbf" + json.dumps(document).encode()) == plain[:1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[1]",
        b"[NaN]",
        b"[" * 100_000,
        b"\xff",
        b'[{"arch":"HOPPER","arch":"HOPPER"}]',
        json.dumps([entry(arch="VOLTA")]).encode(),
        json.dumps([entry(arch=None)]).encode(),
        json.dumps([entry(arch=["HOPPER"])]).encode(),
        json.dumps([entry(evidence=1)]).encode(),
        json.dumps([entry(evidence="***")]).encode(),
        json.dumps([entry(certificate=None)]).encode(),
        json.dumps([{"arch": "HOPPER"}]).encode(),
        json.dumps({"arch": "HOPPER", "evidence": 1, "evidence_list": []}).encode(),
        json.dumps([{"arch": "HOPPER"}] * 33).encode(),
        b" " * (gpu_evidence.MAX_JSON + 1),
    ],
)
def test_other_documents_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_evidence_list(data)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_is_malformed_or_a_list(document: object) -> None:
    with pytest.raises(MalformedError):
        parse_evidence_list(json.dumps(document).encode())
