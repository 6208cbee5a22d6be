"""NVIDIA's endorsements: reference manifests (RIM) for what devices report, and revocation answers (OCSP).

Which manifests are needed follows from signed fields of the report, never from what a server says. A
revocation answer must carry a nonce that we chose: it is made once for a batch of certificates and kept
with the answers, and verification is told it (`GpuPolicy.ocsp_nonce`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cocoon_attestation.errors import MalformedError, RejectedError
from cocoon_attestation.gpu.certificates import device_identity, parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.ocsp import MAX_RESPONSE, parse_ocsp, response_problem
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.report import GpuReport, parse_gpu_report
from cocoon_attestation.gpu.rim import MAX_RIM, Rim, parse_rim, rim_chain_problem, verify_rim
from cocoon_attestation.roots.nvidia import nvidia_rim_root
from cocoon_attestation.strict_json import parse_object
from cocoon_proxy.endorsements.cache import AgeLimits, EndorsementCache, Parts, Validity, Wanted
from cocoon_proxy.endorsements.fetch import Fetcher
from cocoon_proxy.endorsements.sources import EndorsementSources

RIM_AGES: Final = AgeLimits(refresh_s=7 * 86_400, max_age_s=90 * 86_400)
OCSP_AGES: Final = AgeLimits(refresh_s=3600, max_age_s=6 * 3600)
MAX_RIM_ANSWER: Final = 2 * MAX_RIM
"""Base64 and JSON around a manifest."""
PARALLEL: Final = 8
"""Revocation questions at a time."""
_NONCE: Final = "nonce"
Random = Callable[[int], bytes]
Link = tuple[x509.Certificate, x509.Certificate]
"""A certificate and its issuer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestId:
    """A manifest that a report calls for."""

    id: str
    """Name at the service, for example ``NV_GPU_DRIVER_GH100_570.172.08``."""
    version: str
    """Version that the manifest must be about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsedDevices:
    """Devices with everything that verification needs beside their reports."""

    devices: tuple[GpuDevice, ...]
    ocsp_nonce: bytes
    """32 bytes that the revocation answers carry: `GpuPolicy.ocsp_nonce` of the verification."""


def manifest_ids(report: GpuReport, chip: str) -> tuple[ManifestId, ...]:
    """The manifests for what a device signed; `chip` is the name in its certificate.

    Raises:
        MalformedError: the report does not name its versions or its board.
    """
    vbios = report.vbios_version
    board = (report.project, report.project_sku, report.chip_sku)
    if vbios is None or not all(board):
        raise MalformedError("the report does not name its board and firmware")
    place = "_".join(part or "" for part in (*board, vbios.replace(".", "").upper()))
    if len(report.measurements) < 64:
        return (ManifestId(id=f"NV_SWITCH_BIOS_{place}", version=vbios),)
    if report.driver_version is None:
        raise MalformedError("the report names no driver")
    name = report.chip_name or chip
    family = f"NV_GPU_CC_DRIVER_{name}" if name.startswith("GB") else f"NV_GPU_DRIVER_{name}"
    return (
        ManifestId(id=f"{family}_{report.driver_version}", version=report.driver_version),
        ManifestId(id=f"NV_GPU_VBIOS_{place}", version=vbios),
    )


class NvidiaEndorsements:
    """Manifests and revocation answers for GPUs and switches."""

    def __init__(
        self,
        fetcher: Fetcher,
        cache: EndorsementCache,
        sources: EndorsementSources,
        *,
        random: Random,
        rim_roots: frozenset[bytes] | None = None,
    ) -> None:
        """Fetch from `sources` what is not in `cache`.

        Args:
            fetcher: HTTP.
            cache: where endorsements are kept.
            sources: addresses.
            random: source of nonces, for example `secrets.token_bytes`.
            rim_roots: DER roots of manifest signers; None: NVIDIA's. Others serve tests.
        """
        self._fetcher = fetcher
        self._cache = cache
        self._rim_base = sources.nvidia_rim.rstrip("/")
        self._ocsp = sources.nvidia_ocsp.rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {sources.nvidia_token}"} if sources.nvidia_token else {}
        self._random = random
        self._rim_roots = frozenset({nvidia_rim_root()}) if rim_roots is None else rim_roots

    async def endorse(self, devices: Sequence[GpuDevice], *, now: int) -> EndorsedDevices:
        """The devices with current manifests and revocation answers.

        Manifests that came with a device stay if they are signed, in date and for its versions; revocation
        answers that came with it are dropped: they carry nobody's nonce that we know.

        Raises:
            MalformedError: a report or a chain does not parse.
            EndorsementUnavailableError: a service cannot be asked, or what came cannot be used.
            UnsupportedError: the extra ``gpu`` is not installed.
        """
        equipped = await asyncio.gather(*(self._with_manifests(device, now) for device in devices))
        links = [_links(device) for device in equipped]
        answers = await self._answers({_digest(link): link for own in links for link in own})
        nonce = answers[_NONCE]
        return EndorsedDevices(
            devices=tuple(
                replace(
                    device, ocsp_responses=tuple(answers[name] for name in dict.fromkeys(map(_digest, own)))
                )
                for device, own in zip(equipped, links, strict=True)
            ),
            ocsp_nonce=nonce,
        )

    async def manifest(self, wanted: ManifestId) -> bytes:
        """One manifest, XML.

        Raises:
            EndorsementUnavailableError: the service cannot be asked, or what came cannot be used.
            UnsupportedError: the extra ``gpu`` is not installed.
        """
        return (await self._cache.get(self._wanted_manifest(wanted))).parts["body"]

    async def _with_manifests(self, device: GpuDevice, now: int) -> GpuDevice:
        report = parse_gpu_report(device.report)
        chip = device_identity(parse_pem_chain(device.certificate_chain)).chip
        stapled = {rim: data for data in device.rims if (rim := self._stapled_version(data, now))}
        versions = _versions(report, device.kind)
        if stapled.keys() >= set(versions):
            return replace(device, rims=tuple(stapled[version] for version in versions))
        found = []
        for wanted in manifest_ids(report, chip):
            own = stapled.get(wanted.version.casefold())
            found.append(own if own is not None else await self.manifest(wanted))
        return replace(device, rims=tuple(found))

    def _stapled_version(self, data: bytes, now: int) -> str | None:
        """Version of a manifest that came with the evidence, if it is good now."""
        try:
            return self._check_manifest(data, now).version.casefold()
        except (MalformedError, RejectedError):
            return None

    def _check_manifest(self, data: bytes, now: int) -> Rim:
        parsed = parse_rim(data)
        problem = rim_chain_problem(parsed.chain, self._rim_roots, datetime.fromtimestamp(now, UTC))
        if problem is not None:
            raise RejectedError(f"manifest signer: {problem}")
        rim = verify_rim(parsed)
        if isinstance(rim, str):
            raise RejectedError(rim)
        return rim

    def _wanted_manifest(self, wanted: ManifestId) -> Wanted:
        async def fetch() -> Parts:
            answer = await self._fetcher.get(
                f"{self._rim_base}/v1/rim/{wanted.id}", limit=MAX_RIM_ANSWER, headers=self._headers
            )
            return {"body": manifest_of(answer.body, wanted.id)}

        def validate(parts: Parts, now: int) -> Validity:
            rim = self._check_manifest(parts["body"], now)
            if rim.version.casefold() != wanted.version.casefold():
                raise RejectedError("the manifest is about another version")
            end = min(one.not_valid_after_utc for one in rim.chain)
            return Validity(valid_until=int(min(end.timestamp(), 2**53 - 1)))

        key = f"nvidia/rim/{wanted.id}"
        if self._rim_roots != {nvidia_rim_root()}:
            key += "/" + hashlib.sha256(b"".join(sorted(self._rim_roots))).hexdigest()[:16]
        return Wanted(key=key, fetch=fetch, validate=validate, ages=RIM_AGES)

    async def _answers(self, links: Mapping[str, Link]) -> Parts:
        """Revocation answers by certificate digest, and the nonce they carry."""

        async def fetch() -> Parts:
            nonce, gate = self._random(32), asyncio.Semaphore(PARALLEL)

            async def ask(link: Link) -> bytes:
                async with gate:
                    return await self._ask(link, nonce)

            answers = await gather_all([ask(link) for link in links.values()])
            return {_NONCE: nonce, **dict(zip(links, answers, strict=True))}

        def validate(parts: Parts, now: int) -> Validity:
            at = datetime.fromtimestamp(now, UTC)
            ends = [_check_answer(parts[name], link, parts[_NONCE], at) for name, link in links.items()]
            return Validity(valid_until=min(ends))

        batch = hashlib.sha256("".join(sorted(links)).encode("ascii")).hexdigest()
        wanted = Wanted(key=f"nvidia/ocsp/{batch}", fetch=fetch, validate=validate, ages=OCSP_AGES)
        return (await self._cache.get(wanted)).parts

    async def _ask(self, link: Link, nonce: bytes) -> bytes:
        answer = await self._fetcher.post(
            self._ocsp,
            content=ocsp_request(*link, nonce),
            content_type="application/ocsp-request",
            accept="application/ocsp-response",
            limit=MAX_RESPONSE,
        )
        return answer.body


async def gather_all(work: Sequence[Awaitable[bytes]]) -> list[bytes]:
    """Results in order; the first failure cancels the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """An OCSP request (RFC 6960) in DER with a SHA-384 CertID and our 32-byte nonce (RFC 8954)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA384())
    request = builder.add_extension(x509.OCSPNonce(nonce), critical=False).build()
    return request.public_bytes(Encoding.DER)


def manifest_of(body: bytes, wanted: str) -> bytes:
    """The manifest inside an answer of the service: JSON with ``id`` and ``rim`` in base64.

    Members beside these are not signed and not read, but a ``sha256`` in hex must fit.

    Raises:
        MalformedError: not such an answer, or one about another manifest.
    """
    document = parse_object(body, limit=MAX_RIM_ANSWER, what="manifest answer")
    if document.get("id", wanted) != wanted:
        raise MalformedError("the answer is about another manifest")
    try:
        data = base64.b64decode(str(document.get("rim", "")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("the manifest is not base64") from error
    digest = document.get("sha256")
    if isinstance(digest, str) and len(digest) == 64 and digest.lower() != hashlib.sha256(data).hexdigest():
        raise MalformedError("the manifest was damaged on its way")
    if not 1 <= len(data) <= MAX_RIM:
        raise MalformedError(f"a manifest of 1 to {MAX_RIM} bytes expected")
    return data


def _check_answer(data: bytes, link: Link, nonce: bytes, at: datetime) -> int:
    """Demand an answer to our question; a "revoked" is kept, because verification must see it."""
    response = parse_ocsp(data)
    problem = response_problem(response, *link, nonce, at)
    if problem is not None and not problem.startswith("status "):
        raise RejectedError(problem)
    if response.end is None:
        raise RejectedError("the revocation answer has no end")
    return int(response.end.timestamp())


def _versions(report: GpuReport, kind: DeviceKind) -> list[str]:
    """The versions that need a manifest, as the device signed them."""
    signed = [report.vbios_version]
    if kind is DeviceKind.GPU:
        signed.insert(0, report.driver_version)
    return [(version or "").casefold() for version in signed]


def _links(device: GpuDevice) -> list[Link]:
    """Every certificate whose revocation counts: device, provisioner, family, and manifest signers."""
    chain = parse_pem_chain(device.certificate_chain)
    links: list[Link] = list(pairwise(chain[1:]))
    for data in device.rims:
        links += list(pairwise(parse_rim(data).chain))
    return links


def _digest(link: Link) -> str:
    return hashlib.sha256(link[0].public_bytes(Encoding.DER)).hexdigest()
