"""Intel's collateral from PCS or a PCCS (API version 4): TCB info, QE identity and revocation lists.

The result is `TdxCollateralBytes`, what an appraisal takes; `endorsements.collateral` gives its other forms.
"""

from __future__ import annotations

import asyncio
import binascii
import enum
import hashlib
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import ConfigError, MalformedError, RejectedError
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.roots import intel_root
from cocoon_proxy.endorsements import statements
from cocoon_proxy.endorsements.cache import (
    AgeLimits,
    EndorsementCache,
    Parts,
    Validate,
    Validity,
    Wanted,
)
from cocoon_proxy.endorsements.fetch import Answer, Fetcher
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.endorsements.statements import SignedText, split_envelope

INTEL_AGES: Final = AgeLimits(refresh_s=6 * 3600, max_age_s=24 * 3600)
STAPLED_AGE_S: Final = 24 * 3600
"""Longest time since the issue date of stapled TCB info and QE identity."""
FMSPC_SIZE: Final = 6
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


class IntelTee(enum.StrEnum):
    """Which of Intel's TEEs the statements are for; the value is the path of the API."""

    TDX = "tdx"
    SGX = "sgx"


class PckCa(enum.StrEnum):
    """Which authority issued the PCK certificate; the value is the parameter of the API."""

    PLATFORM = "platform"
    PROCESSOR = "processor"

    @property
    def common_name(self) -> str:
        """End of the authority's common name."""
        return f"SGX PCK {self.value.capitalize()} CA"


_TCB_HEADERS: Final = ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
"""Name in version 4, and the one that some caches still use for SGX."""
_TCB_FORM: Final = {IntelTee.TDX: ("TDX", 3), IntelTee.SGX: ("SGX", 3)}
_QE_FORM: Final = {IntelTee.TDX: ("TD_QE", 2), IntelTee.SGX: ("QE", 2)}


class IntelEndorsements:
    """Collateral for platforms of Intel."""

    def __init__(
        self,
        fetcher: Fetcher,
        cache: EndorsementCache,
        sources: EndorsementSources,
        *,
        root: bytes | None = None,
        ages: AgeLimits = INTEL_AGES,
    ) -> None:
        """Fetch from `sources` what is not in `cache`.

        Args:
            fetcher: HTTP.
            cache: where statements are kept.
            sources: addresses.
            root: DER of the root of trust; None: Intel's. Another one serves tests.
            ages: how old statements may be.
        """
        self._fetcher = fetcher
        self._cache = cache
        self._base = sources.intel_pcs.rstrip("/")
        self._root_crl = sources.intel_root_crl
        self._update = sources.intel_update
        self._root = intel_root() if root is None else root
        self._ages = ages

    async def collateral(
        self, fmspc: bytes, ca: PckCa = PckCa.PLATFORM, tee: IntelTee = IntelTee.TDX
    ) -> TdxCollateralBytes:
        """Current collateral for a platform family (FMSPC, 6 bytes).

        Raises:
            EndorsementUnavailableError: a statement cannot be had, or what came cannot be used.
            ConfigError: the FMSPC has another length.
        """
        if len(fmspc) != FMSPC_SIZE:
            raise ConfigError("an FMSPC has 6 bytes")
        found = await asyncio.gather(
            self._cache.get(self._tcb_info(fmspc, tee)),
            self._cache.get(self._qe_identity(tee)),
            self._cache.get(self._pck_crl(ca)),
            self._cache.get(self._root_list()),
        )
        tcb, qe, pck, root = (endorsement.parts for endorsement in found)
        tcb_text = split_envelope(tcb["body"], "tcbInfo")
        qe_text = split_envelope(qe["body"], "enclaveIdentity")
        return TdxCollateralBytes(
            pck_crl_issuer_chain=pck["chain"].decode("ascii"),
            root_ca_crl=root["body"],
            pck_crl=pck["body"],
            tcb_info_issuer_chain=tcb["chain"].decode("ascii"),
            tcb_info=tcb_text.text.decode("ascii"),
            tcb_info_signature=tcb_text.signature,
            qe_identity_issuer_chain=qe["chain"].decode("ascii"),
            qe_identity=qe_text.text.decode("ascii"),
            qe_identity_signature=qe_text.signature,
        )

    async def prefer(
        self,
        stapled: TdxCollateralBytes | None,
        fmspc: bytes,
        ca: PckCa,
        *,
        now: int,
        min_evaluation: int = 0,
        tee: IntelTee = IntelTee.TDX,
    ) -> TdxCollateralBytes:
        """`stapled` if it is authentic, in date and young; else collateral of our own.

        Raises:
            EndorsementUnavailableError: the stapled one is of no use, and no other can be had.
        """
        if (
            stapled is not None
            and self.stapled_problem(stapled, fmspc, ca, now=now, min_evaluation=min_evaluation, tee=tee)
            is None
        ):
            return stapled
        return await self.collateral(fmspc, ca, tee)

    def stapled_problem(
        self,
        stapled: TdxCollateralBytes,
        fmspc: bytes,
        ca: PckCa,
        *,
        now: int,
        min_evaluation: int = 0,
        tee: IntelTee = IntelTee.TDX,
    ) -> str | None:
        """Why stapled collateral is not used in place of our own, or None.

        Signed statements must be issued at most a day ago, so that a node cannot choose an older
        evaluation number while both are valid.
        """
        chain = stapled.tcb_info_issuer_chain.encode("ascii")
        qe_chain = stapled.qe_identity_issuer_chain.encode("ascii")
        tcb = SignedText(text=stapled.tcb_info.encode("ascii"), signature=stapled.tcb_info_signature)
        qe = SignedText(text=stapled.qe_identity.encode("ascii"), signature=stapled.qe_identity_signature)
        try:
            found = (
                statements.check_statement(
                    tcb, chain, root=self._root, now=now, form=_TCB_FORM[tee], fmspc=fmspc
                ),
                statements.check_statement(
                    qe, qe_chain, root=self._root, now=now, form=_QE_FORM[tee], fmspc=None
                ),
            )
            self._check_pck_crl(stapled.pck_crl, stapled.pck_crl_issuer_chain.encode("ascii"), ca, now)
            self._check_root_crl(stapled.root_ca_crl, now)
        except (MalformedError, RejectedError) as error:
            return str(error)
        if any(now - one.rank[1] > STAPLED_AGE_S for one in found):
            return "a statement was issued more than a day ago"
        if min(one.rank[0] for one in found) < min_evaluation:
            return "the evaluation number is below the minimum"
        return None

    def _tcb_info(self, fmspc: bytes, tee: IntelTee) -> Wanted:
        async def fetch() -> Parts:
            answer = await self._fetcher.get(
                f"{self._base}/{tee}/certification/v4/tcb",
                params={"fmspc": fmspc.hex(), "update": self._update},
                limit=statements.MAX_STATEMENT,
            )
            return {"body": answer.body, "chain": _chain(answer, *_TCB_HEADERS)}

        def validate(parts: Parts, now: int) -> Validity:
            signed = split_envelope(parts["body"], "tcbInfo")
            return statements.check_statement(
                signed, parts["chain"], root=self._root, now=now, form=_TCB_FORM[tee], fmspc=fmspc
            )

        return self._wanted(f"intel/{tee}/tcb/{fmspc.hex()}", fetch, validate)

    def _qe_identity(self, tee: IntelTee) -> Wanted:
        async def fetch() -> Parts:
            answer = await self._fetcher.get(
                f"{self._base}/{tee}/certification/v4/qe/identity",
                params={"update": self._update},
                limit=statements.MAX_STATEMENT,
            )
            return {"body": answer.body, "chain": _chain(answer, "sgx-enclave-identity-issuer-chain")}

        def validate(parts: Parts, now: int) -> Validity:
            signed = split_envelope(parts["body"], "enclaveIdentity")
            return statements.check_statement(
                signed, parts["chain"], root=self._root, now=now, form=_QE_FORM[tee], fmspc=None
            )

        return self._wanted(f"intel/{tee}/qe", fetch, validate)

    def _pck_crl(self, ca: PckCa) -> Wanted:
        async def fetch() -> Parts:
            answer = await self._fetcher.get(
                f"{self._base}/sgx/certification/v4/pckcrl",
                params={"ca": ca.value, "encoding": "der"},
                limit=2 * statements.MAX_CRL,
            )
            return {"body": crl_der(answer.body), "chain": _chain(answer, "sgx-pck-crl-issuer-chain")}

        def validate(parts: Parts, now: int) -> Validity:
            return self._check_pck_crl(parts["body"], parts["chain"], ca, now)

        return self._wanted(f"intel/crl/{ca}", fetch, validate)

    def _root_list(self) -> Wanted:
        async def fetch() -> Parts:
            answer = await self._fetcher.get(self._root_crl, limit=2 * statements.MAX_CRL)
            return {"body": crl_der(answer.body)}

        return self._wanted(
            "intel/crl/root", fetch, lambda parts, now: self._check_root_crl(parts["body"], now)
        )

    def _check_pck_crl(self, der: bytes, chain: bytes, ca: PckCa, now: int) -> Validity:
        return statements.check_crl(der, chain, root=self._root, now=now, issuer_name=ca.common_name)

    def _check_root_crl(self, der: bytes, now: int) -> Validity:
        chain = statements.pem_of(self._root)
        return statements.check_crl(der, chain, root=self._root, now=now, issuer_name=None)

    def _wanted(self, key: str, fetch: Callable[[], Awaitable[Parts]], validate: Validate) -> Wanted:
        # Statements under another root never share a name with Intel's.
        scope = "" if self._root == intel_root() else f"/{hashlib.sha256(self._root).hexdigest()[:16]}"
        return Wanted(key=key + scope, fetch=fetch, validate=validate, ages=self._ages)


def crl_der(body: bytes) -> bytes:
    """A revocation list in DER from what services send: DER, PEM, or DER in hex (as a PCCS does).

    Raises:
        MalformedError: none of these.
    """
    data = body.strip()
    if data.startswith(b"-----BEGIN"):
        try:
            return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
        except ValueError as error:
            raise MalformedError("the revocation list is not PEM") from error
    if data and all(byte in _HEX_DIGITS for byte in data):
        try:
            return binascii.unhexlify(data)
        except binascii.Error as error:
            raise MalformedError("the revocation list is not hex") from error
    return body


def _chain(answer: Answer, *names: str) -> bytes:
    """A certificate chain from the first of the headers that is there: PEM, percent-encoded."""
    value = next((answer.headers[name] for name in names if name in answer.headers), "")
    chain = unquote(value, errors="replace") if len(value) <= 3 * statements.MAX_CHAIN else ""
    if not chain or not chain.isascii() or len(chain) > statements.MAX_CHAIN:
        raise MalformedError(f"the answer has no usable header {names[0]}")
    return chain.encode("ascii")
