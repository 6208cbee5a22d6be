"""Endorsements for a session: which service may be asked under a policy, and what to ask it for.

Under a vendor's own root the vendor's service is asked, or what the settings put in its place. Under a
development root only services that the settings name are asked: no vendor knows simulated hardware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.endorsements import DeviceEndorsements, OwnEndorsements, SnpEndorsements
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import Evidence, SnpEvidence, TdxCollateralBytes, TdxEvidence
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.policy import Policy
from cocoon_attestation.tdx.collateral import parse_chain
from cocoon_attestation.tdx.dcap import DcapError, pck_family
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_proxy.config import EndorsementConfig
from cocoon_proxy.endorsements.sources import EndorsementSources

if TYPE_CHECKING:
    from cocoon_proxy.endorsements.fetch import FetchLimits
    from cocoon_proxy.endorsements.intel import PckCa
    from cocoon_proxy.endorsements.service import Endorsements

_KINDS: Final = {
    evidence_pb2.DEVICE_KIND_GPU: DeviceKind.GPU,
    evidence_pb2.DEVICE_KIND_SWITCH: DeviceKind.SWITCH,
}


class EndorsementDesk:
    """Gets endorsements for evidence. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        config: EndorsementConfig,
        *,
        directory: Path | None,
        clock: Callable[[], float],
        limits: FetchLimits | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            config: mode and addresses.
            directory: where endorsements are kept; None: in memory only.
            clock: Unix time in seconds.
            limits: bounds of a fetch.

        Raises:
            ConfigError: an address that may not be asked.
        """
        self._config = config
        self._sources = _sources(config)
        self._directory = directory
        self._clock = clock
        self._limits = limits
        self._services: dict[bytes, Endorsements] = {}

    async def close(self) -> None:
        """Stop all fetches and close all connections."""
        services = list(self._services.values())
        self._services.clear()
        for service in services:
            await service.close()

    async def collateral(
        self,
        evidence: Evidence,
        policy: Policy,
        *,
        now: int,
        min_evaluation: Callable[[bytes], Awaitable[int]] | None = None,
    ) -> TdxCollateralBytes | None:
        """Intel's collateral in place of what the node stapled; None if that is good, or nobody may be asked.

        `min_evaluation` gives the highest evaluation number seen for a platform family (FMSPC); without it,
        the stapled collateral is not good.

        Raises:
            MalformedError: the quote does not parse.
            EndorsementUnavailableError: it is needed and cannot be had.
        """
        if not isinstance(evidence.cpu, TdxEvidence) or not self._may_ask(policy, self._config.pccs):
            return None
        stapled = evidence.cpu.collateral
        fmspc, authority = _platform(evidence.cpu)
        intel = self._service(policy).intel
        if min_evaluation is None:
            return await intel.collateral(fmspc, authority)
        least = max(policy.min_tcb_evaluation, await min_evaluation(fmspc))
        found = await intel.prefer(stapled, fmspc, authority, now=now, min_evaluation=least)
        return None if found is stapled else found

    async def snp(self, evidence: Evidence, policy: Policy) -> SnpEndorsements | None:
        """AMD's endorsements in place of what the node stapled; None if nobody may be asked.

        Raises:
            MalformedError: report or certificate do not parse.
            ConfigError: the processor is not known.
            EndorsementUnavailableError: they cannot be had.
        """
        if not isinstance(evidence.cpu, SnpEvidence) or not self._may_ask(policy, self._config.amd_kds):
            return None
        certificate = evidence.cpu.certificate or None
        return await self._service(policy).amd.endorse(evidence.cpu.report, certificate=certificate)

    async def devices(self, evidence: Evidence, policy: Policy, *, now: int) -> OwnEndorsements | None:
        """Manifests and revocation answers of our own for all devices; None if nobody may be asked.

        Raises:
            MalformedError: a report or a chain does not parse.
            EndorsementUnavailableError: they cannot be had.
        """
        both = self._config.nvidia_rim and self._config.nvidia_ocsp
        if not evidence.devices or policy.gpu is None or not self._may_ask(policy, both):
            return None
        shown = [
            GpuDevice(
                kind=_KINDS[evidence_pb2.DeviceKind.ValueType(device.kind)],
                report=device.report,
                certificate_chain=device.certificate_chain.encode("ascii"),
                rims=device.rims,
            )
            for device in evidence.devices
        ]
        found = await self._service(policy).nvidia.endorse(shown, now=now)
        return OwnEndorsements(
            devices=tuple(
                DeviceEndorsements(rims=device.rims, ocsp_responses=device.ocsp_responses)
                for device in found.devices
            ),
            ocsp_nonce=found.ocsp_nonce,
        )

    def _may_ask(self, policy: Policy, own_address: str) -> bool:
        if self._config.mode == "stapled":
            return False
        return bool(own_address) or not policy.simulated

    def _service(self, policy: Policy) -> Endorsements:
        """The service for a policy's roots: statements under other roots never meet."""
        snp = () if policy.snp is None else tuple(root.der for root in policy.snp.roots)
        rims = () if policy.gpu is None else tuple(sorted(policy.gpu.rim_roots))
        key = hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in (policy.root, *snp, *rims)))
        name = key.digest()
        if name not in self._services:
            # Loads an HTTP client: not before somebody is asked, which on most days is never.
            from cocoon_proxy.endorsements.service import Endorsements

            self._services[name] = Endorsements(
                self._sources,
                directory=self._directory,
                offline=self._config.mode == "offline",
                limits=self._limits,
                clock=self._clock,
                intel_root=policy.dev_root,
                amd_roots=None if policy.snp is None else policy.snp.roots,
                rim_roots=None if policy.gpu is None else policy.gpu.rim_roots,
            )
        return self._services[name]


def _sources(config: EndorsementConfig) -> EndorsementSources:
    sources = EndorsementSources(
        nvidia_token=config.nvidia_token, ca_file=Path(config.ca_file) if config.ca_file else None
    )
    changes = {
        name: value for name in ("amd_kds", "nvidia_rim", "nvidia_ocsp") if (value := getattr(config, name))
    }
    sources = replace(sources, **changes)
    return sources.with_pccs(config.pccs) if config.pccs else sources


def _platform(cpu: TdxEvidence) -> tuple[bytes, PckCa]:
    """The platform family in the quote's PCK certificate, and the authority that issued it. Not authenticated:
    they say what to ask for, and verification decides whether it fits."""
    from cocoon_proxy.endorsements.intel import PckCa

    quote = parse_quote(cpu.quote)
    try:
        fmspc = pck_family(quote.pck_chain)[0]
    except DcapError as error:
        raise MalformedError("the quote's PCK certificate names no platform family") from error
    issuer = parse_chain(quote.pck_chain, "PCK chain")[0].issuer.rfc4514_string()
    authority = PckCa.PROCESSOR if PckCa.PROCESSOR.common_name in issuer else PckCa.PLATFORM
    return fmspc, authority
