"""What a node staples to its GPU evidence: manifests that the host keeps, and fresh revocation answers.

Manifests are files; the host refreshes them. Revocation answers must carry the nonce of the evidence, so
the responder is asked for every evidence: through `OcspResponder`, by default over HTTP. Everything here
is untrusted; the guest checks it once at boot, and every verifier again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError
from cocoon_attestation.gpu.certificates import parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.ocsp import MAX_RESPONSE
from cocoon_attestation.gpu.policy import DeviceKind
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.rim import MAX_RIM, Rim, parse_rim, verify_rim

MAX_FILES: Final = 64
PARALLEL: Final = 8
TIMEOUT_S: Final = 10.0
FETCH_HINT: Final = "on the host: cocoon endorsements fetch gpu"
Link = tuple[x509.Certificate, x509.Certificate]
"""A certificate and its issuer."""


class OcspResponder(Protocol):
    """Answers OCSP requests."""

    def ask(self, request: bytes) -> bytes:
        """The DER answer to a DER request.

        Raises:
            UnavailableError: no answer.
        """
        ...


class GpuEndorser(Protocol):
    """Adds manifests and revocation answers to devices."""

    def endorse(self, devices: Sequence[GpuDevice], nonce: bytes) -> tuple[GpuDevice, ...]:
        """The devices with everything that vouches for them; answers carry `nonce` (32 bytes).

        Raises:
            UnavailableError: a manifest or an answer cannot be had.
        """
        ...


class HttpOcsp:
    """An OCSP responder over HTTP: bounded, without redirects."""

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Ask the responder at `address`.

        Raises:
            ConfigError: not an http or https address.
        """
        if urlsplit(address).scheme not in ("http", "https"):
            raise ConfigError("the OCSP responder needs an http or https address")
        self._address = address
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False, trust_env=False)

    def ask(self, request: bytes) -> bytes:
        """The answer to one request.

        Raises:
            UnavailableError: none came in time, or it is too long.
        """
        headers = {
            "Content-Type": "application/ocsp-request",
            "Accept": "application/ocsp-response",
            "Accept-Encoding": "identity",
        }
        body = bytearray()
        try:
            with self._client.stream("POST", self._address, content=request, headers=headers) as response:
                if response.status_code != 200:
                    raise UnavailableError(f"the OCSP responder answered {response.status_code}")
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > MAX_RESPONSE:
                        raise UnavailableError("the OCSP responder's answer is too long")
        except httpx.HTTPError as error:
            raise UnavailableError(f"the OCSP responder did not answer ({type(error).__name__})") from error
        return bytes(body)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class FileManifests:
    """Manifests in a directory, one file each (``*.xml``, ``*.swidtag``); read again for every evidence."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`."""
        self._directory = directory
        self._seen: dict[bytes, Rim | None] = {}

    def fitting(self, versions: Sequence[str]) -> tuple[bytes, ...]:
        """One manifest for each of `versions`, in that order.

        Raises:
            UnavailableError: the directory cannot be read, or there is none for a version.
        """
        by_version: dict[str, bytes] = {}
        for data in self._files():
            rim = self._read(data)
            if rim is not None:
                by_version.setdefault(rim.version.casefold(), data)
        missing = [version for version in versions if version not in by_version]
        if missing:
            raise UnavailableError(f"no manifest for version {missing[0]}", hint=FETCH_HINT)
        return tuple(by_version[version] for version in versions)

    def _files(self) -> list[bytes]:
        try:
            paths = sorted(
                path for path in self._directory.iterdir() if path.suffix in (".xml", ".swidtag")
            )
            return [_read_file(path) for path in paths[:MAX_FILES]]
        except OSError as error:
            raise UnavailableError(
                f"manifests {self._directory}: {error.strerror}", hint=FETCH_HINT
            ) from error

    def _read(self, data: bytes) -> Rim | None:
        """The manifest, or None for a file that is none: one bad file must not hide the others."""
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            try:
                found = verify_rim(parse_rim(data))
            except MalformedError:
                found = "malformed"
            self._seen[key] = None if isinstance(found, str) else found
        return self._seen[key]


class LiveEndorser:
    """Manifests from files, revocation answers from a responder."""

    def __init__(self, manifests: FileManifests, responder: OcspResponder) -> None:
        """Take manifests from `manifests` and ask `responder`."""
        self._manifests = manifests
        self._responder = responder

    def endorse(self, devices: Sequence[GpuDevice], nonce: bytes) -> tuple[GpuDevice, ...]:
        """The devices with everything that vouches for them; answers carry `nonce` (32 bytes).

        Raises:
            MalformedError: a report or a chain does not parse.
            UnavailableError: a manifest or an answer cannot be had.
        """
        equipped = [replace(one, rims=self._manifests.fitting(_versions(one))) for one in devices]
        links = [_links(device) for device in equipped]
        answers = self._answers({_digest(link): link for own in links for link in own}, nonce)
        return tuple(
            replace(
                device, ocsp_responses=tuple(answers[name] for name in dict.fromkeys(map(_digest, own)))
            )
            for device, own in zip(equipped, links, strict=True)
        )

    def _answers(self, links: Mapping[str, Link], nonce: bytes) -> dict[str, bytes]:
        requests = [ocsp_request(*link, nonce) for link in links.values()]
        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            return dict(zip(links, pool.map(self._responder.ask, requests), strict=True))


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes) -> bytes:
    """An OCSP request (RFC 6960) in DER with a SHA-384 CertID and a 32-byte nonce (RFC 8954)."""
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA384())
    request = builder.add_extension(x509.OCSPNonce(nonce), critical=False).build()
    return request.public_bytes(Encoding.DER)


def _versions(device: GpuDevice) -> list[str]:
    report = parse_gpu_report(device.report)
    signed = [report.vbios_version]
    if device.kind is DeviceKind.GPU:
        signed.insert(0, report.driver_version)
    return [(version or "").casefold() for version in signed]


def _links(device: GpuDevice) -> list[Link]:
    """Every certificate whose revocation counts: device, provisioner, family, and manifest signers."""
    links: list[Link] = list(pairwise(parse_pem_chain(device.certificate_chain)[1:]))
    for data in device.rims:
        links += list(pairwise(parse_rim(data).chain))
    return links


def _digest(link: Link) -> str:
    return hashlib.sha256(link[0].public_bytes(Encoding.DER)).hexdigest()


def _read_file(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_RIM + 1)
