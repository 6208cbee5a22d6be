"""All endorsements behind one door: one HTTP client, one cache, one directory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from cocoon_attestation.snp.policy import SnpRoot
from cocoon_proxy.endorsements.amd import AmdEndorsements
from cocoon_proxy.endorsements.cache import EndorsementCache
from cocoon_proxy.endorsements.fetch import Fetcher, FetchLimits
from cocoon_proxy.endorsements.intel import IntelEndorsements
from cocoon_proxy.endorsements.nvidia import NvidiaEndorsements
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.endorsements.store import EndorsementStore


class Endorsements:
    """Fetch and cache of every vendor. Enter it as an async context manager, or call `close`."""

    def __init__(
        self,
        sources: EndorsementSources | None = None,
        *,
        directory: Path | None,
        offline: bool = False,
        limits: FetchLimits | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
        intel_root: bytes | None = None,
        amd_roots: tuple[SnpRoot, ...] | None = None,
        rim_roots: frozenset[bytes] | None = None,
    ) -> None:
        """Prepare; nothing is fetched yet.

        Args:
            sources: addresses; None: the vendors' own.
            directory: where endorsements are kept; None: in memory only.
            offline: never fetch.
            limits: bounds of a fetch.
            clock: Unix time in seconds.
            random: source of OCSP nonces.
            intel_root: DER root in place of Intel's, for development networks.
            amd_roots: roots in place of AMD's.
            rim_roots: DER roots of manifests in place of NVIDIA's.
        """
        chosen = sources or EndorsementSources()
        self._fetcher = Fetcher(chosen, limits=limits)
        store = None if directory is None else EndorsementStore(directory)
        self._cache = EndorsementCache(store, clock=clock, offline=offline)
        self.intel = IntelEndorsements(self._fetcher, self._cache, chosen, root=intel_root)
        """TDX and SGX collateral."""
        self.amd = AmdEndorsements(self._fetcher, self._cache, chosen, roots=amd_roots)
        """VCEK certificates, chains and revocation lists."""
        self.nvidia = NvidiaEndorsements(
            self._fetcher, self._cache, chosen, random=random, rim_roots=rim_roots
        )
        """Manifests and revocation answers."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop all fetches and close all connections."""
        await self._cache.close()
        await self._fetcher.close()


def sources_with(
    *, pccs: str | None = None, ca_file: Path | None = None, token: str = ""
) -> EndorsementSources:
    """The vendors' addresses with the usual changes: a PCCS, its authority, NVIDIA's token.

    Raises:
        ConfigError: not an https address (or http on this machine).
    """
    sources = EndorsementSources(ca_file=ca_file, nvidia_token=token)
    return sources if pccs is None else sources.with_pccs(pccs)
