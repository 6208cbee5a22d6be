"""A simulated Intel for tests: raw quotes of both kinds with collateral, good or with one chosen fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from cocoon.v1 import evidence_pb2
from cocoon_attestation.vendor.outcome import Outcome
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_quote import QeIdentityValues, certify, enclave_report

REPORT_DATA = bytes(range(64))
RTMR = b"\x11" * 48


def collateral_json(message: evidence_pb2.TdxCollateral, **changes: Any) -> bytes:
    """Collateral in the field names of QuoteCollateralV3."""
    document = {
        field.name: value.hex() if isinstance(value, bytes) else value
        for field, value in message.ListFields()
    }
    return json.dumps(document | changes).encode()


class Intel:
    """A simulated Intel that makes quotes of both kinds under one development root."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.now: int = lab.now
        self.platform: DevPlatform = lab.platform
        self.options = QuoteOptions(root=self.platform.root_der)

    def tdx(self, **changes: bytes) -> bytes:
        """A TDX quote; `changes` replace fields of the report before it is signed."""
        report = self.platform.td_report(REPORT_DATA, RTMR)
        return self.platform.quote(dataclasses.replace(report, **changes))

    def sgx(
        self,
        *,
        attributes: bytes = bytes.fromhex("05") + bytes(7) + bytes.fromhex("e7") + bytes(7),
        edit: Callable[[bytes], bytes] = lambda quote: quote,
        qe: QeIdentityValues | None = None,
        signer: pki.Issuer | None = None,
    ) -> bytes:
        """An SGX quote of version 3."""
        machine = self.platform
        identity = dataclasses.replace(
            qe or machine.quoting_enclave, isv_prod_id=1 if qe is None else qe.isv_prod_id
        )
        body = enclave_report(
            QeIdentityValues(mrsigner=b"\x77" * 32, cpu_svn=identity.cpu_svn, attributes=attributes),
            REPORT_DATA,
        )
        vendor = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
        header = (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + bytes(8) + vendor + bytes(20)
        signed = header + body
        chain = (signer or machine.pck, machine.platform_ca, machine.root)
        section = pki.sign_raw(machine.attestation_key, signed) + pki.raw_public_key(
            machine.attestation_key
        )
        section += certify(attestation_key=machine.attestation_key, chain=chain, identity=identity)
        return edit(signed + len(section).to_bytes(4, "little") + section)

    def statements(self, kind: str, **arguments: Any) -> bytes:
        """Collateral for quotes of `kind`; arguments are those of `DevPlatform.collateral`."""
        message = self.platform.collateral(self.now, **arguments)
        if kind == "sgx":
            tcb = json.loads(message.tcb_info)
            tcb["id"] = "SGX"
            del tcb["tdxModule"], tcb["tdxModuleIdentities"]
            for level in tcb["tcbLevels"]:
                del level["tcb"]["tdxtcbcomponents"]
            qe = json.loads(message.qe_identity) | {"id": "QE", "isvprodid": 1}
            for name, document in (("tcb_info", tcb), ("qe_identity", qe)):
                text = json.dumps(document, separators=(",", ":"))
                setattr(message, name, text)
                setattr(
                    message, f"{name}_signature", pki.sign_raw(self.platform.tcb_signer.key, text.encode())
                )
        return collateral_json(message)

    def judge(self, quote: bytes, collateral: bytes | None = None, **changes: Any) -> Outcome:
        kind = "sgx" if quote[0] == 3 else "tdx"
        now = changes.pop("now", self.now)
        options = dataclasses.replace(self.options, **changes)
        return verify_raw_quote(quote, collateral or self.statements(kind), options, now)
