"""Fetching is bounded in size, time and patience, and follows nobody elsewhere."""

from __future__ import annotations

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cocoon_attestation.errors import ConfigError
from cocoon_proxy.endorsements.fetch import Fetcher, FetchLimits
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.errors import EndorsementUnavailableError


async def failure(fetcher: Fetcher, url: str, limit: int = 1000) -> EndorsementUnavailableError:
    with pytest.raises(EndorsementUnavailableError) as caught:
        await fetcher.get(url, limit=limit)
    assert caught.value.exit_code == 40
    assert caught.value.details["source"] == url
    return caught.value


async def test_good_answer(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/a", reply(body=b"hello", headers={"TCB-Info-Issuer-Chain": "x%0Ay"}))
    answer = await fetcher.get(f"{server.url}/a", limit=5, params={"fmspc": "00"}, headers={"X-Test": "1"})
    assert answer.body == b"hello"
    assert answer.headers["tcb-info-issuer-chain"] == "x%0Ay"
    (request,) = server.requests
    assert request.query == {"fmspc": "00"}
    assert request.headers["x-test"] == "1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"] == "cocoon-network"


async def test_post(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/ocsp/", lambda request: reply(body=request.body[::-1]))
    answer = await fetcher.post(
        f"{server.url}/ocsp/", content=b"abc", content_type="a/b", accept="c/d", limit=10
    )
    assert answer.body == b"cba"
    assert server.requests[0].method == "POST"
    assert (server.requests[0].headers["content-type"], server.requests[0].headers["accept"]) == (
        "a/b",
        "c/d",
    )


@pytest.mark.parametrize("no_length", [False, True])
async def test_oversize_is_refused(server: Any, fetcher: Fetcher, reply: Any, no_length: bool) -> None:
    server.on("/a", reply(body=b"x" * 1001, no_length=no_length))
    assert "longer than 1000 bytes" in str(await failure(fetcher, f"{server.url}/a"))
    assert len(server.requests) == 1
    server.on("/a", reply(body=b"x" * 1000, no_length=no_length))
    assert len((await fetcher.get(f"{server.url}/a", limit=1000)).body) == 1000


async def test_endless_answer_is_cut_off_early(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/a", reply(body=b"x" * 50_000_000, no_length=True))
    started = time.monotonic()
    await failure(fetcher, f"{server.url}/a")
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("how", [{"delay_s": 5.0}, {"drip_s": 0.05, "body": b"x" * 500}])
async def test_slow_answer_ends_in_time(server: Any, reply: Any, sources: Any, how: dict[str, Any]) -> None:
    server.on("/a", reply(**how))
    async with Fetcher(sources, limits=FetchLimits(total_s=0.3)) as fetcher:
        started = time.monotonic()
        error = await failure(fetcher, f"{server.url}/a")
    assert time.monotonic() - started < 1.5
    assert "within 0.3 s" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: Any, fetcher: Fetcher, reply: Any, status: int) -> None:
    other = f"{server.url}/elsewhere"
    server.on("/elsewhere", reply(body=b"trap"))
    for target in (other, other.replace("127.0.0.1", "localhost"), "https://example.org/", "/elsewhere"):
        server.on("/a", reply(status=status, headers={"Location": target}))
        error = await failure(fetcher, f"{server.url}/a")
        assert "redirects are not followed" in str(error)
        assert error.details["status"] == status
    assert "/elsewhere" not in server.paths()


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 410, 501])
async def test_other_answers_fail_at_once(server: Any, fetcher: Fetcher, reply: Any, status: int) -> None:
    server.on("/a", reply(status=status))
    assert str(status) in str(await failure(fetcher, f"{server.url}/a"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_busy_service_is_asked_again(server: Any, fetcher: Fetcher, reply: Any, status: int) -> None:
    server.on("/a", reply(status=status), reply(status=status), reply(body=b"now"))
    assert (await fetcher.get(f"{server.url}/a", limit=10)).body == b"now"
    assert len(server.requests) == 3
    server.on("/b", reply(status=status))
    error = await failure(fetcher, f"{server.url}/b")
    assert f"answered {status}" in str(error)
    assert server.paths().count("/b") == 3


async def test_retry_after_is_obeyed_within_the_limit(server: Any, reply: Any, sources: Any) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with Fetcher(sources, limits=FetchLimits(total_s=10.0, backoff_s=0.5), sleep=sleep) as fetcher:
        server.on(
            "/a", reply(status=429, headers={"Retry-After": "7"}), reply(status=503), reply(body=b"x")
        )
        await fetcher.get(f"{server.url}/a", limit=10)
        assert slept == [7.0, 1.0]
        server.on("/b", reply(status=429, headers={"Retry-After": "3600"}))
        error = await failure(fetcher, f"{server.url}/b")
        assert error.details["retry_after_s"] == 3600.0
        assert server.paths().count("/b") == 1
        server.on(
            "/c", reply(status=429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), reply()
        )
        await fetcher.get(f"{server.url}/c", limit=10)
        assert slept[-1] == 0.5


async def test_broken_connection_is_tried_again(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/a", reply(body=b"hello", cut=True), reply(body=b"hello"))
    assert (await fetcher.get(f"{server.url}/a", limit=10)).body == b"hello"
    server.on("/b", reply(body=b"hello", cut=True))
    await failure(fetcher, f"{server.url}/b")


async def test_no_service_at_all(fetcher: Fetcher, server: Any) -> None:
    url = f"{server.url}/a"
    await server.stop()
    await failure(fetcher, url)
    await server.start()


async def test_compressed_answer_is_refused(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/a", reply(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}))
    assert "compressed" in str(await failure(fetcher, f"{server.url}/a"))


async def test_huge_headers_fail(server: Any, fetcher: Fetcher, reply: Any) -> None:
    server.on("/a", reply(headers={"X": "y" * 1_000_000}))
    await failure(fetcher, f"{server.url}/a")


async def test_query_does_not_show_in_errors(server: Any, fetcher: Fetcher) -> None:
    with pytest.raises(EndorsementUnavailableError) as caught:
        await fetcher.get(f"{server.url}/a", limit=1, params={"secret": "value"})
    assert "value" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    "address",
    [
        "",
        "example.org",
        "http://example.org",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "https://",
        "https://user@example.org",
        "https://example.org?x=1",
        "https://example.org#x",
        "https://example.org:port",
        "https://[::1",
        "http://127.0.0.1.example.org",
    ],
)
def test_addresses_must_be_https_or_local(address: str) -> None:
    for name in ("intel_pcs", "intel_root_crl", "amd_kds", "nvidia_rim", "nvidia_ocsp"):
        with pytest.raises(ConfigError, match=name):
            EndorsementSources(**{name: address})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address", ["https://example.org/x", "http://127.0.0.9:1", "http://[::1]:1", "http://localhost"]
)
def test_good_addresses(address: str) -> None:
    assert EndorsementSources(amd_kds=address).amd_kds == address


def test_defaults_are_the_vendors_own() -> None:
    shown = EndorsementSources(nvidia_token="hidden")
    assert shown.to_dict() == {
        "intel_pcs": "https://api.trustedservices.intel.com",
        "intel_root_crl": "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        "intel_update": "early",
        "amd_kds": "https://kdsintf.amd.com",
        "nvidia_rim": "https://rim.attestation.nvidia.com",
        "nvidia_ocsp": "https://ocsp.ndis.nvidia.com",
    }
    assert "hidden" not in repr(shown)
    with pytest.raises(ConfigError):
        EndorsementSources(intel_update="sometimes")
    with pytest.raises(ConfigError):
        EndorsementSources(nvidia_token="a\nb")


def test_pccs_serves_the_root_list_too() -> None:
    sources = EndorsementSources().with_pccs("https://127.0.0.1:8081/")
    assert sources.intel_pcs == "https://127.0.0.1:8081"
    assert sources.intel_root_crl == "https://127.0.0.1:8081/sgx/certification/v4/rootcacrl"
    with pytest.raises(ConfigError):
        EndorsementSources().with_pccs("http://pccs.example.org")


def test_authority_file_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ca_file"):
        Fetcher(EndorsementSources(ca_file=tmp_path / "missing.pem"))
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    with pytest.raises(ConfigError, match="ca_file"):
        Fetcher(EndorsementSources(ca_file=broken))


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A throwaway certificate for this machine, and its key, in PEM files."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    usage = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(usage, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "cert.pem", directory / "key.pem"
    pem[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    pem[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pem


async def test_tls_is_verified(tmp_path: Path) -> None:
    """A server with a certificate of nobody is refused; with its authority named it is accepted."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/a"
    limits = FetchLimits(total_s=3.0, attempts=1)
    async with listener:
        async with Fetcher(EndorsementSources(), limits=limits) as fetcher:
            assert "CERTIFICATE_VERIFY_FAILED" in str(await failure(fetcher, url))
        async with Fetcher(EndorsementSources(ca_file=certificate), limits=limits) as fetcher:
            assert (await fetcher.get(url, limit=10)).body == b"ok"
