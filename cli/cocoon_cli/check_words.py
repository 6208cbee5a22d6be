"""What the checks outside appraisal demand: those of a client on connection and receipt, and of a bundle.

The specifications have the exact rules; these are their short forms for ``cocoon explain CHECK``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CLIENT: Final = "docs/spec/client.md"
_BUNDLE: Final = "docs/spec/bundle.md"
_RULES: Final = "docs/spec/policy-language.md"
_RELEASES: Final = "docs/spec/releases.md"

_WORDS: Final = (
    (
        "tls.spki",
        _CLIENT,
        "The key at the end of the TLS connection is the one in the appraised key binding.",
    ),
    (
        "endorsements.rollback",
        _CLIENT,
        "No statement or firmware version that the appraisal rests on is older than what this client has seen: "
        "evaluation numbers, issue dates and revocation lists, TCB of a chip, firmware of a GPU.",
    ),
    (
        "receipt.signature",
        _CLIENT,
        "The receipt is signed by the receipt key of the appraised key binding.",
    ),
    ("receipt.node", _CLIENT, "The receipt names the node that was asked."),
    ("receipt.binding", _CLIENT, "The receipt names the key binding that was appraised."),
    ("receipt.request", _CLIENT, "The receipt commits to the exact request body under the client's salt."),
    ("receipt.response", _CLIENT, "The receipt commits to all bytes of the answer, in order."),
    (
        "receipt.channel",
        _CLIENT,
        "The receipt names the channel that pays; none for a refusal without charge.",
    ),
    ("receipt.model", _CLIENT, "The receipt names a measured, allowed model with the wanted name."),
    (
        "receipt.status",
        _CLIENT,
        "The receipt states the status of the answer; or an error after a good beginning: the answer was cut "
        "short, and its end says why.",
    ),
    ("receipt.usage", _CLIENT, "The token counts of the receipt are those beside it in the final chunk."),
    (
        "receipt.tokens",
        _CLIENT,
        "The generated tokens fit the request's limit and the amount of text that came.",
    ),
    ("receipt.price", _CLIENT, "The amount is at most what the counted tokens cost at the agreed prices."),
    ("receipt.amount", _CLIENT, "The amount is at most the worst case that was agreed for this request."),
    (
        "receipt.cumulative",
        _CLIENT,
        "The channel's running total leaves nothing unexplained but requests in flight and requests whose "
        "outcome is unknown.",
    ),
    (
        "receipt.cap",
        _CLIENT,
        "The channel's running total is within the highest cap that the client signed.",
    ),
    ("receipt.time", _CLIENT, "The receipt was issued between the request and now."),
    ("receipt.anchor", _CLIENT, "The receipt promises an anchor on chain within 24 hours."),
    ("client.any_of", _RULES, "Your own rules: at least one of these alternatives holds."),
    ("client.unsafe_no_op", _RULES, "UNSAFE: your own rules contain one that checks nothing."),
    ("client.tee_is", _RULES, "Your own rule: the TEE is of a listed kind."),
    ("client.simulated_is", _RULES, "Your own rule: the evidence is simulated, or is not."),
    ("client.platform_in", _RULES, "Your own rule: the platform id is listed."),
    ("client.platform_not_in", _RULES, "Your own rule: the platform id is not listed."),
    ("client.release_in", _RULES, "Your own rule: the measured release is listed."),
    ("client.model_in", _RULES, "Your own rule: every loaded model is listed."),
    ("client.node_in", _RULES, "Your own rule: the node contract is listed."),
    ("client.config_in", _RULES, "Your own rule: the measured configuration is listed."),
    (
        "client.tcb_evaluation_at_least",
        _RULES,
        "Your own rule: the evaluation numbers of TCB info and QE identity are at least this (TDX only).",
    ),
    ("client.tcb_status_in", _RULES, "Your own rule: the TCB status is listed (TDX only)."),
    (
        "client.tcb_not_tolerated",
        _RULES,
        "Your own rule: the platform is up to date, without grace or an allow-list (TDX only).",
    ),
    (
        "client.advisory_not_in",
        _RULES,
        "Your own rule: no listed advisory concerns the platform (TDX only).",
    ),
    ("client.gpu_serial_in", _RULES, "Your own rule: there is a GPU, and all of them are listed."),
    ("client.gpu_serial_not_in", _RULES, "Your own rule: no GPU and no switch is listed."),
    ("client.gpu_count_at_least", _RULES, "Your own rule: at least so many GPUs are attested."),
    ("client.nvlink_encrypted", _RULES, "Your own rule: no plain NVLink between several GPUs."),
    ("release.signatures", _RELEASES, "Enough different reviewers signed the release document."),
    ("release.validity", _RELEASES, "The release document is issued and has not ended."),
    ("release.registry", _RELEASES, "The registry names the release of the document."),
    (
        "chain.proof",
        "docs/spec/ledger-client.md#proof-document",
        "Registry and node contract are proved by signed masterchain blocks from the pinned block on.",
    ),
    ("bundle.parts", _BUNDLE, "Every part of the bundle that was needed could be read."),
    ("bundle.encoding", _BUNDLE, "Every binary part is base64 in its one canonical spelling."),
    ("bundle.network", _BUNDLE, "The bundle names the network and the registry that were proved."),
    ("bundle.receipt", _BUNDLE, "The receipt parses."),
    ("bundle.evidence", _BUNDLE, "The evidence parses and was made for publication."),
    ("bundle.binding", _BUNDLE, "Receipt, evidence and node contract name one key binding of one node."),
    ("bundle.evidence_digest", _BUNDLE, "The evidence is the one that the node contract recorded."),
    (
        "bundle.appraisal",
        _BUNDLE,
        "The evidence is accepted under the registry's policy at the receipt's time.",
    ),
    ("bundle.model", _BUNDLE, "The answering model was measured and is allowed, or none was reached."),
    ("bundle.receipt_signature", _BUNDLE, "The receipt is signed by the receipt key of the key binding."),
    ("bundle.terms", _BUNDLE, "Token counts and amounts of the receipt do not contradict each other."),
    ("bundle.time", _BUNDLE, "The receipt was issued while its keys were valid and before its anchor."),
    ("bundle.checkpoint", _BUNDLE, "The inclusion proof is for the checkpoint that is anchored on chain."),
    ("bundle.inclusion", _BUNDLE, "The receipt is in the anchored log, at the index that it names."),
    ("bundle.request_commitment", _BUNDLE, "The receipt commits to exactly this request."),
    ("bundle.response_commitment", _BUNDLE, "The receipt commits to exactly this response."),
)

CHECK_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {id: (words, page if "#" in page else f"{page}#{id}") for id, page, words in _WORDS}
)
"""By check id: what must hold, and the section of the specification."""
