"""The answer to a challenge: proof that the receipt is in the log, checked before it costs anything."""

from __future__ import annotations

from typing import Final

import grpc
from pytoniq_core import Cell

from cocoon.v1 import attestation_service_pb2 as wire
from cocoon.v1 import attestation_service_pb2_grpc
from cocoon_attestation.errors import LogProofError, PaymentError
from cocoon_attestation.merkle import verify_inclusion
from cocoon_enclave.host.plan import ChallengeView
from cocoon_enclave.host.rpc import EnclaveUnavailableError, call
from cocoon_ton.node_messages import respond_body

_REJECTED: Final = getattr(grpc.StatusCode, LogProofError.grpc_status)


class NoAnswerError(PaymentError):
    """The enclave cannot show the receipt where the challenge demands it."""

    code = "no_answer"
    default_hint = "the log that was anchored is not the enclave's: restore its state before the deadline"


async def answer_body(
    records: attestation_service_pb2_grpc.AttestationServiceAsyncStub,
    challenge: ChallengeView,
    *,
    timeout_s: float,
) -> Cell:
    """Body of the message to the node contract that answers `challenge`.

    Raises:
        NoAnswerError: the enclave has no such receipt there; sending anything would only cost fees.
        EnclaveUnavailableError: no answer from the enclave.
    """
    request = wire.GetInclusionProofRequest(
        receipt_hash=challenge.receipt_hash, tree_size=challenge.tree_size
    )
    try:
        response = await call(records.GetInclusionProof(request, timeout=timeout_s))
    except EnclaveUnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, grpc.aio.AioRpcError) and cause.code() is _REJECTED:
            raise NoAnswerError("the enclave's log does not have the receipt") from error
        raise
    proof = tuple(response.proof.hashes)
    try:
        verify_inclusion(
            leaf=challenge.receipt_hash,
            index=challenge.index,
            size=challenge.tree_size,
            proof=proof,
            root=challenge.root,
        )
    except LogProofError as error:
        raise NoAnswerError("the enclave's log has another receipt there") from error
    return respond_body(receipt_hash=challenge.receipt_hash, proof=proof)
