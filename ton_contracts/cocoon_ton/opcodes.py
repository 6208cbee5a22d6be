"""Opcodes, record tags and exit codes of the contracts.

Generated from ``ton_contracts/contracts`` by ``generate_opcodes.py``: do not edit.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class ExitCode(NamedTuple):
    """What an exit code of one of the contracts means."""

    contract: str
    name: str
    meaning: str


KEY_BINDING: Final = 0xC0C00001
RECEIPT: Final = 0xC0C00002
CHECKPOINT: Final = 0xC0C00003
AUTHORIZATION: Final = 0xC0C00004
CLAIM: Final = 0xC0C00005
CHANNEL_STORAGE: Final = 0xC0C00007
ANCHOR: Final = 0xC0C00008
REGISTRY_STORAGE: Final = 0xC0C00010
NODE_STORAGE: Final = 0xC0C00011
PCK_STORAGE: Final = 0xC0C00020
ATTESTATION_RULE: Final = 0xC0C00021
ATTESTATION_STATEMENT: Final = 0xC0C00022
REGISTRY_ANNOUNCE: Final = 0xC0C10001
REGISTRY_EXECUTE: Final = 0xC0C10002
REGISTRY_CANCEL: Final = 0xC0C10003
REGISTRY_REMOVE: Final = 0xC0C10004
REGISTRY_ACCEPT_GOVERNANCE: Final = 0xC0C10005
REGISTRY_NODE_UPDATE: Final = 0xC0C10006
REGISTRY_NODE_LEAVE: Final = 0xC0C10007
REGISTRY_TOP_UP: Final = 0xC0C10008
REGISTRY_ACKNOWLEDGE: Final = 0xC0C10101
SET_RELEASE: Final = 0xC0C11001
SET_MODEL: Final = 0xC0C11002
SET_POLICY: Final = 0xC0C11003
SET_PARAMETERS: Final = 0xC0C11004
SET_CODES: Final = 0xC0C11005
ALLOW: Final = 0xC0C11006
SET_GOVERNANCE: Final = 0xC0C11007
UPGRADE: Final = 0xC0C11008
SET_RULE: Final = 0xC0C11009
NODE_TOP_UP: Final = 0xC0C20001
NODE_JOIN: Final = 0xC0C20002
NODE_ATTEST: Final = 0xC0C20003
NODE_UPDATE_TERMS: Final = 0xC0C20004
NODE_ANCHOR: Final = 0xC0C20005
NODE_SETTLE: Final = 0xC0C20006
NODE_UNBOND: Final = 0xC0C20007
NODE_WITHDRAW: Final = 0xC0C20008
NODE_ADD_STAKE: Final = 0xC0C20009
NODE_CHALLENGE: Final = 0xC0C2000A
NODE_RESPOND: Final = 0xC0C2000B
NODE_SLASH: Final = 0xC0C2000C
NODE_CONFLICT: Final = 0xC0C2000D
NODE_DISPUTE_PAID: Final = 0xC0C20101
CHANNEL_TOP_UP: Final = 0xC0C30001
CHANNEL_SETTLE: Final = 0xC0C30002
CHANNEL_START_CLOSE: Final = 0xC0C30003
CHANNEL_FINISH_CLOSE: Final = 0xC0C30004
CHANNEL_PAID: Final = 0xC0C30101
CHANNEL_CLOSED: Final = 0xC0C30102
PCK_VERIFY: Final = 0xC0C40001
PCK_ATTEST: Final = 0xC0C40002
PCK_VERIFY_AND_ATTEST: Final = 0xC0C40003
PCK_TOP_UP: Final = 0xC0C40004
PCK_ATTESTED: Final = 0xC0C40101
CHANGE_ANNOUNCED: Final = 0xC0CE1001
CHANGE_EXECUTED: Final = 0xC0CE1002
CHANGE_CANCELLED: Final = 0xC0CE1003
REMOVED: Final = 0xC0CE1004
GOVERNANCE_ACCEPTED: Final = 0xC0CE1005
NODE_LISTED: Final = 0xC0CE1006
NODE_LEFT: Final = 0xC0CE1007
NODE_ANCHORED: Final = 0xC0CE2001
NODE_ATTESTED: Final = 0xC0CE2002
NODE_BOND_CHANGED: Final = 0xC0CE2003
NODE_SLASHED: Final = 0xC0CE2004
EXCESSES: Final = 0xD53276DB

EXIT_CODES: Final[dict[int, ExitCode]] = {
    200: ExitCode("Registry", "NotGovernance", "the sender is not the governance address"),
    201: ExitCode("Registry", "NotNextGovernance", "the sender was not named as the next governance"),
    202: ExitCode("Registry", "BadChange", "unknown kind of change, or values out of range"),
    203: ExitCode("Registry", "AlreadyPending", "the same change is announced already"),
    204: ExitCode("Registry", "TooManyPending", "no more changes may be announced"),
    205: ExitCode("Registry", "NotPending", "no such change is announced"),
    206: ExitCode("Registry", "TooEarly", "the timelock is not over"),
    207: ExitCode("Registry", "TooLate", "the change was not executed in time; announce it again"),
    208: ExitCode("Registry", "NotListed", "no such release, model, rule, code version or kind of removal"),
    209: ExitCode("Registry", "NotANode", "the sender's address is not that of a node with this identity"),
    210: ExitCode("Registry", "WrongNetwork", "for another TON network"),
    211: ExitCode("Registry", "WrongRegistry", "the node belongs to another registry"),
    212: ExitCode("Registry", "UnknownCode", "the code of the node or its Pck is not the registry's"),
    213: ExitCode("Registry", "Denied", "the node or its platform was removed by governance"),
    214: ExitCode("Registry", "StakeTooLow", "below the minimum stake, or that of its kind of TEE"),
    215: ExitCode("Registry", "ListFull", "as many nodes as the parameters allow"),
    216: ExitCode("Registry", "TooLittleValue", "the message does not pay for its own processing"),
    217: ExitCode("Registry", "NoTimelock", "the registry was deployed without a timelock"),
    218: ExitCode("Registry", "CodeExists", "this code version has code already"),
    219: ExitCode("Registry", "UnknownRelease", "the binding's release is not listed, or revoked"),
    220: ExitCode("Registry", "KindNotAllowed", "the policy does not accept this kind of TEE"),
    221: ExitCode("Registry", "QuoteNeeded", "this kind of TEE joins with a quote that Pck verified"),
    222: ExitCode("Registry", "UnknownRule", "the rule is not listed, or its evaluation number is too low"),
    300: ExitCode("Node", "NotOwner", "the sender is not the owner"),
    301: ExitCode("Node", "NotRegistry", "the sender is not the registry"),
    302: ExitCode("Node", "WrongNetwork", "for another TON network"),
    303: ExitCode("Node", "WrongNode", "the binding or the checkpoint names another node"),
    304: ExitCode("Node", "WrongBond", "not in this state of the bond"),
    305: ExitCode("Node", "BadTerms", "endpoint, models or prices out of form"),
    306: ExitCode("Node", "BadLifetime", "key binding expired, not valid yet, or valid for too long"),
    307: ExitCode("Node", "BadExpiry", "the evidence counts no more"),
    308: ExitCode("Node", "StaleBinding", "older than the current binding"),
    309: ExitCode("Node", "NoKey", "no key binding is recorded"),
    310: ExitCode("Node", "BadSignature", "not signed by the current or the previous receipt key"),
    311: ExitCode("Node", "NotNewer", "the checkpoint is not larger than the anchored one"),
    312: ExitCode("Node", "WrongBase", "the anchor order starts from another checkpoint"),
    313: ExitCode("Node", "BadProof", "the consistency proof does not lead to the roots"),
    314: ExitCode("Node", "LowBalance", "the balance above stake and reserve does not pay for this"),
    315: ExitCode("Node", "TooEarly", "the stake is still locked"),
    316: ExitCode("Node", "StakeTooLow", "less value than the stake that it names"),
    317: ExitCode("Node", "TooLittleValue", "the message does not pay for its own processing"),
    318: ExitCode("Node", "UnknownKey", "no key binding of this hash is kept"),
    319: ExitCode("Node", "NotDue", "the receipt's time to be anchored is not over"),
    320: ExitCode("Node", "WindowOver", "the receipt's time to be challenged is over"),
    321: ExitCode("Node", "AlreadyChallenged", "the receipt is under challenge, or was slashed for"),
    322: ExitCode("Node", "TooManyChallenges", "as many challenges as may be open"),
    323: ExitCode("Node", "NoChallenge", "no such challenge is open"),
    324: ExitCode("Node", "BadInclusion", "the proof does not lead from the receipt to the root"),
    325: ExitCode("Node", "AnswerTooLate", "the deadline of the answer is over"),
    326: ExitCode("Node", "NotMissed", "the deadline of the answer is not over"),
    327: ExitCode("Node", "NothingAtStake", "the node holds no stake"),
    328: ExitCode("Node", "NoConflict", "the checkpoints do not contradict each other"),
    329: ExitCode("Node", "TooManyKeys", "too many recent key bindings; wait until old ones expire"),
    330: ExitCode("Node", "OpenChallenges", "the stake waits for the end of open challenges"),
    331: ExitCode("Node", "NotPck", "not from a Pck with the registry's code and the rule's anchor"),
    332: ExitCode("Node", "WrongRelease", "the quote shows another release than the binding names"),
    333: ExitCode("Node", "ProposalOpen", "the registry has not answered to the last key binding yet"),
    400: ExitCode("Channel", "NotClient", "only the client may start to close"),
    401: ExitCode("Channel", "NotNode", "only the node contract may settle"),
    402: ExitCode("Channel", "WrongNetwork", "the channel or the authorization is for another TON network"),
    403: ExitCode("Channel", "WrongChannel", "the authorization names another channel"),
    404: ExitCode("Channel", "Expired", "the authorization's time is over"),
    405: ExitCode("Channel", "BadSignature", "not signed by the client key"),
    406: ExitCode("Channel", "NothingDue", "nothing beyond what was paid already"),
    407: ExitCode("Channel", "NoFunds", "the deposit is spent"),
    408: ExitCode("Channel", "Closing", "refused while the channel is closing"),
    409: ExitCode("Channel", "NotClosing", "nobody started to close"),
    410: ExitCode("Channel", "TooEarly", "the close delay is not over"),
    411: ExitCode("Channel", "Closed", "the channel is closed for good"),
    500: ExitCode("Pck", "BadRelation", "the hint does not fit signature, digest and key"),
    501: ExitCode("Pck", "BadSignature", "one of the two native checks fails"),
    502: ExitCode("Pck", "WrongKey", "the hint is for another key"),
    503: ExitCode("Pck", "BadCertificate", "not a certificate of the expected form"),
    504: ExitCode("Pck", "CertificateTime", "a certificate is not valid at this time"),
    505: ExitCode("Pck", "NotAnAuthority", "the issuing certificate is not one of a certificate authority"),
    506: ExitCode("Pck", "WrongCertificate", "the certificate is not the one in this contract's address"),
    507: ExitCode("Pck", "NotVerified", "the certificate chain was not shown yet"),
    508: ExitCode("Pck", "BadChunks", "a cell of the quote or of the QE report has another length"),
    509: ExitCode("Pck", "BadQuote", "not a TDX quote of a kind that is verified here"),
    510: ExitCode("Pck", "BadModule", "the TDX module is not a production module of the vendor"),
    511: ExitCode("Pck", "Debug", "the guest or the quoting enclave can be debugged"),
    512: ExitCode("Pck", "BadEnclave", "not the quoting enclave of the rule, or another attestation key"),
    513: ExitCode("Pck", "WrongRule", "the rule is for other platforms or another TDX module"),
    514: ExitCode("Pck", "OldTcb", "a security version is below the rule's"),
    515: ExitCode("Pck", "RuleExpired", "the rule or the certificate is not valid any more"),
    516: ExitCode("Pck", "OldBeacon", "the challenge is not one of the recent masterchain blocks"),
    517: ExitCode("Pck", "WrongReportData", "report data do not name this binding, GPU digest and block"),
    518: ExitCode("Pck", "TooLittleValue", "the message does not pay for its own processing"),
}
"""By exit code of the compute phase; codes below 200 belong to TVM."""
