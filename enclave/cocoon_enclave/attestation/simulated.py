"""The simulated TEE: byte-correct TDX evidence without hardware, for development networks.

It makes quotes of version 4 under a development root, which only a network whose registry names that
root accepts; under Intel's root they are refused. **It protects nothing**: whoever can read the platform
directory can sign any quote. See docs/spec/simulated-tee.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon.v1 import evidence_pb2
from cocoon_attestation.dev_roots import EXTENSION, encode_dev_roots
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.rtmr3 import RuntimeEvent, replay
from cocoon_attestation.tdx.report import TdReport
from cocoon_attestation.types import exact_bytes
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated_quote import QeIdentityValues, certify, encode_quote
from cocoon_enclave.attestation.simulated_statements import qe_identity_json, tcb_info_json
from cocoon_enclave.attestation.simulated_store import read_platform, write_platform
from cocoon_enclave.attestation.simulated_vendors import DevVendors

EVALUATION_NUMBER: Final = 19
"""tcbEvaluationDataNumber of simulated collateral: the minimum for a development registry."""
COLLATERAL_DAYS: Final = 30

_ISSUERS: Final = ("root", "platform_ca", "pck", "tcb_signer")
_YEARS: Final = 10
_TD_ATTRIBUTES: Final = bytes.fromhex("0000001000000000")
_XFAM: Final = bytes.fromhex("e702060000000000")
_BACKDATED_S: Final = 300
"""Collateral is issued this much in the past, so that a verifier's clock may be a little behind."""


def simulated_release(version: str | None = None) -> Release:
    """Reference values of the simulated TEE: they follow from the version of the code alone.

    Args:
        version: version string; None for the installed one.
    """
    text = metadata.version("cocoon-network") if version is None else version

    def measurement(register: str) -> bytes:
        return hashlib.sha384(f"cocoon/v1/simulated/{register}/{text}".encode()).digest()

    return Release(
        name=f"SIMULATED {text}"[:127],
        tee=TeeKind.TDX,
        mrtd=measurement("mrtd"),
        rtmr0=measurement("rtmr0"),
        rtmr1=measurement("rtmr1"),
        rtmr2=measurement("rtmr2"),
        td_attributes=_TD_ATTRIBUTES,
        xfam=_XFAM,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevPlatform:
    """A made-up machine with its whole certificate hierarchy: root, CA, PCK, TCB signer, attestation key.

    Everything in it is secret in the sense that the network's simulated trust hangs on it.
    """

    root: pki.Issuer
    platform_ca: pki.Issuer
    pck: pki.Issuer
    tcb_signer: pki.Issuer
    attestation_key: ec.EllipticCurvePrivateKey
    ppid: bytes
    """Platform provisioning id, 16 bytes; its tagged hash is the platform id of appraisals."""
    tcb: pki.PlatformTcb = field(default_factory=pki.PlatformTcb)
    vendors: DevVendors | None = None
    """Simulated AMD and NVIDIA, if the root names them."""

    def __repr__(self) -> str:
        """Which machine, and nothing of its keys."""
        return f"DevPlatform(SIMULATED, ppid={self.ppid.hex()})"

    @classmethod
    def create(cls, now: int, rng: pki.Random, vendors: DevVendors | None = None) -> Self:
        """A new development root and one machine under it.

        Args:
            now: Unix time in seconds; certificates are valid for ten years from then.
            rng: source of randomness, for example `secrets.token_bytes`.
            vendors: simulated AMD and NVIDIA that the root is to name.
        """
        named = () if vendors is None else (encode_dev_roots(vendors.roots),)
        root = pki.make_ca(
            pki.ROOT_NAME,
            parent=None,
            path_length=1,
            now=now,
            years=_YEARS,
            rng=rng,
            extra=[x509.UnrecognizedExtension(EXTENSION, value) for value in named],
        )
        ca = pki.make_ca(pki.PLATFORM_CA_NAME, parent=root, path_length=0, now=now, years=_YEARS, rng=rng)
        signer = pki.make_leaf(pki.TCB_SIGNER_NAME, parent=root, now=now, years=_YEARS, rng=rng)
        pck, ppid = _new_pck(ca, now, rng)
        key = pki.new_key(rng)
        return cls(
            root=root,
            platform_ca=ca,
            pck=pck,
            tcb_signer=signer,
            attestation_key=key,
            ppid=ppid,
            vendors=vendors,
        )

    def sibling(self, now: int, rng: pki.Random) -> DevPlatform:
        """Another machine under the same root: own keys, platform id, chip and devices."""
        pck, ppid = _new_pck(self.platform_ca, now, rng)
        vendors = None if self.vendors is None else self.vendors.sibling(now, rng)
        return replace(self, pck=pck, ppid=ppid, attestation_key=pki.new_key(rng), vendors=vendors)

    @property
    def root_der(self) -> bytes:
        """The development root certificate, DER: what a registry must name to accept this machine."""
        return self.root.certificate.public_bytes(Encoding.DER)

    @property
    def qe_mrsigner(self) -> bytes:
        """MRSIGNER of the simulated quoting enclave, 32 bytes."""
        return hashlib.sha256(b"cocoon/v1/simulated/qe-signer").digest()

    def release(self) -> Release:
        """Reference values of the simulated guest, for the registry's release entry."""
        return simulated_release()

    def td_report(self, report_data: bytes, rtmr3: bytes) -> TdReport:
        """The report of a well-behaved guest.

        Args:
            report_data: 64 bytes.
            rtmr3: runtime register, 48 bytes.
        """
        release, zero = self.release(), bytes(48)
        return TdReport(
            tee_tcb_svn=bytes(self.tcb.tee_tcb_svn),
            mrseam=hashlib.sha384(b"cocoon/v1/simulated/module").digest(),
            mrsignerseam=zero,
            seam_attributes=bytes(8),
            td_attributes=release.td_attributes,
            xfam=release.xfam,
            mrtd=release.mrtd,
            mrconfigid=zero,
            mrowner=zero,
            mrownerconfig=zero,
            rtmr0=release.rtmr0,
            rtmr1=release.rtmr1,
            rtmr2=release.rtmr2,
            rtmr3=rtmr3,
            report_data=report_data,
        )

    def quote(self, report: TdReport) -> bytes:
        """Sign any TD report: a quote of version 4, or of version 5 for a TD 1.5 report."""
        certification = certify(
            attestation_key=self.attestation_key,
            chain=(self.pck, self.platform_ca, self.root),
            identity=self.quoting_enclave,
        )
        return encode_quote(report, attestation_key=self.attestation_key, certification=certification)

    @property
    def quoting_enclave(self) -> QeIdentityValues:
        """The simulated quoting enclave, as the QE identity of `collateral` describes it."""
        return QeIdentityValues(mrsigner=self.qe_mrsigner, cpu_svn=bytes(self.tcb.sgx_components))

    def collateral(
        self,
        now: int,
        *,
        evaluation: int = EVALUATION_NUMBER,
        status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        days: int = COLLATERAL_DAYS,
        revoked: tuple[int, ...] = (),
    ) -> evidence_pb2.TdxCollateral:
        """Freshly signed collateral, valid for `days` from now: a long-lived network never runs dry.

        Args:
            now: Unix time in seconds.
            evaluation: tcbEvaluationDataNumber of both statements.
            status: TCB status of this platform.
            advisories: advisory ids that go with the status.
            days: validity of all four statements.
            revoked: serial numbers of PCK certificates to revoke.
        """
        issued = now - _BACKDATED_S
        tcb_info = tcb_info_json(
            self.tcb, now=issued, days=days, evaluation=evaluation, status=status, advisories=advisories
        )
        qe_identity = qe_identity_json(
            mrsigner=self.qe_mrsigner,
            isv_svn=self.quoting_enclave.isv_svn,
            now=issued,
            days=days,
            evaluation=evaluation,
        )
        signer_chain = self.tcb_signer.pem + self.root.pem
        return evidence_pb2.TdxCollateral(
            pck_crl_issuer_chain=self.platform_ca.pem + self.root.pem,
            root_ca_crl=pki.make_crl(self.root, now=issued, days=days),
            pck_crl=pki.make_crl(self.platform_ca, now=issued, days=days, revoked=revoked),
            tcb_info_issuer_chain=signer_chain,
            tcb_info=tcb_info,
            tcb_info_signature=pki.sign_raw(self.tcb_signer.key, tcb_info.encode("ascii")),
            qe_identity_issuer_chain=signer_chain,
            qe_identity=qe_identity,
            qe_identity_signature=pki.sign_raw(self.tcb_signer.key, qe_identity.encode("ascii")),
        )

    def save(self, directory: Path) -> None:
        """Write the machine with its private keys to `directory`, readable by the owner only.

        Raises:
            ConfigError: there is one already, or the directory cannot be written.
        """
        issuers = {name: getattr(self, name) for name in _ISSUERS}
        write_platform(
            directory,
            issuers=issuers,
            attestation_key=self.attestation_key,
            ppid=self.ppid,
            vendors=self.vendors,
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a machine written by `save`.

        Raises:
            ConfigError: nothing there, or not a platform file.
        """
        issuers, attestation_key, ppid, vendors = read_platform(directory, _ISSUERS)
        return cls(
            root=issuers["root"],
            platform_ca=issuers["platform_ca"],
            pck=issuers["pck"],
            tcb_signer=issuers["tcb_signer"],
            attestation_key=attestation_key,
            ppid=ppid,
            vendors=vendors,
        )


class SimulatedAttester:
    """An `Attester` on a `DevPlatform`. Registers live in memory and start from zero."""

    def __init__(self, platform: DevPlatform, *, clock: Callable[[], float]) -> None:
        """Attest on `platform`; `clock` gives Unix time in seconds for the collateral."""
        self._platform = platform
        self._clock = clock
        self._events: list[RuntimeEvent] = []

    @property
    def kind(self) -> TeeKind:
        """TDX: formats and rules are those of Intel's."""
        return TeeKind.TDX

    @property
    def simulated(self) -> bool:
        """Always true."""
        return True

    @property
    def release(self) -> Release:
        """The release that this guest measures as."""
        return self._platform.release()

    def extend(self, name: str, payload: bytes) -> None:
        """Measure one runtime event."""
        self._events.append(RuntimeEvent(name=name, payload=bytes(payload)))

    def attest(self, report_data: bytes) -> evidence_pb2.TdxEvidence:
        """Evidence over 64 bytes of report data.

        Raises:
            MalformedError: not 64 bytes.
        """
        data = exact_bytes(report_data, 64, "report data")
        report = self._platform.td_report(data, replay(self._events))
        events = [evidence_pb2.RuntimeEvent(name=e.name, payload=e.payload) for e in self._events]
        return evidence_pb2.TdxEvidence(
            quote=self._platform.quote(report),
            runtime_events=events,
            collateral=self._platform.collateral(int(self._clock())),
        )


def _new_pck(ca: pki.Issuer, now: int, rng: pki.Random) -> tuple[pki.Issuer, bytes]:
    ppid = rng(16)
    extension = pki.sgx_extension(ppid=ppid, instance_id=rng(16), tcb=pki.PlatformTcb())
    leaf = pki.make_leaf(pki.PCK_NAME, parent=ca, now=now, years=_YEARS, rng=rng, sgx_extension=extension)
    return leaf, ppid
