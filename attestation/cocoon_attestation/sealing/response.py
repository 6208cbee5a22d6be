"""Sealed responses: `ResponseSealer` in the enclave, `ResponseOpener` on the client's side.

A response is head, any number of data chunks, final. Each chunk's nonce holds its position and its
associated data its type, so a chunk opens at its own place in its own response and nowhere else. The
opener is strict: after the first thing that is wrong it opens nothing more. See docs/spec/sealing.md,
section 4.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Sequence
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cocoon_attestation.errors import CocoonError, SealingError
from cocoon_attestation.sealing.keys import RandomBytes
from cocoon_attestation.sealing.padding import (
    MAX_CHUNK,
    SizeClass,
    data_class,
    final_class,
    head_class,
    pad,
    unpad,
)
from cocoon_attestation.types import exact_bytes
from cocoon_attestation.verified import VerifiedEnclave

SALT_SIZE: Final = 32
_KEY_SIZE: Final = 32
_NONCE_SIZE: Final = 12
_MAX_CHUNKS: Final = 1 << 32
_MAX_FRAME: Final = 2 * MAX_CHUNK
"""More than any honest frame has: refused before any work is done on it."""
_RESPONSE_INFO: Final = b"cocoon/v1/response"


class _Type(enum.IntEnum):
    """Type byte of a chunk."""

    HEAD = 1
    DATA = 2
    FINAL = 3


_CLASSES: Final[dict[_Type, SizeClass]] = {
    _Type.HEAD: head_class,
    _Type.DATA: data_class,
    _Type.FINAL: final_class,
}


_TYPE_BYTES: Final = {type_: bytes([type_]) for type_ in _Type}


class _State(enum.Enum):
    """Where a response stands."""

    START = enum.auto()
    BODY = enum.auto()
    FINISHED = enum.auto()
    BROKEN = enum.auto()


def derive_key_and_nonce(dek: bytes, *, salt: bytes | None, info: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA256 (RFC 5869) to an AES-256 key (32 bytes) and a GCM nonce (12 bytes)."""
    length = _KEY_SIZE + _NONCE_SIZE
    okm = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(dek)
    return okm[:_KEY_SIZE], okm[_KEY_SIZE:]


class _ChunkCipher:
    """AES-256-GCM over the chunks of one response."""

    __slots__ = ("_base_nonce", "_cipher")

    def __init__(self, *, dek: bytes, salt: bytes, key_id: bytes, sealed_hash: bytes) -> None:
        info = _RESPONSE_INFO + key_id + sealed_hash
        key, nonce = derive_key_and_nonce(dek, salt=salt, info=info)
        self._cipher = AESGCM(key)
        self._base_nonce = int.from_bytes(nonce)

    def encrypt(self, type_: _Type, position: int, data: bytes) -> bytes:
        padded = pad(data, _CLASSES[type_], MAX_CHUNK)
        return self._cipher.encrypt(self._nonce(position), padded, _aad(type_, position))

    def decrypt(self, type_: _Type, position: int, ciphertext: bytes) -> bytes:
        if len(ciphertext) > _MAX_FRAME:
            raise SealingError
        try:
            padded = self._cipher.decrypt(self._nonce(position), ciphertext, _aad(type_, position))
        except InvalidTag:
            raise SealingError from None
        return unpad(padded, _CLASSES[type_], MAX_CHUNK)

    def _nonce(self, position: int) -> bytes:
        return (self._base_nonce ^ position).to_bytes(_NONCE_SIZE)


def _aad(type_: _Type, position: int) -> bytes:
    return _TYPE_BYTES[type_] + position.to_bytes(8)


class ResponseSealer:
    """Seals one response: `head`, then `data` any number of times, then `final`.

    Calling out of order is a fault of the caller and raises `CocoonError`; a chunk longer than 1 MiB
    raises `MalformedError`. No repr of keys, no pickling or copying (a copy would repeat nonces).
    """

    __slots__ = ("_cipher", "_position", "_salt", "_state")

    def __init__(
        self,
        *,
        dek: bytes,
        key_id: bytes,
        sealed_hash: bytes,
        random: RandomBytes = secrets.token_bytes,
    ) -> None:
        self._salt = exact_bytes(random(SALT_SIZE), SALT_SIZE, "response salt")
        self._cipher = _ChunkCipher(dek=dek, salt=self._salt, key_id=key_id, sealed_hash=sealed_hash)
        self._position = 0
        self._state = _State.START

    def __repr__(self) -> str:
        return f"ResponseSealer(chunks={self._position})"

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying."""
        raise TypeError("ResponseSealer cannot be pickled or copied")

    @property
    def finished(self) -> bool:
        """True after `final`."""
        return self._state is _State.FINISHED

    def head(self, plain: bytes) -> bytes:
        """Seal the serialized ResponseHead; the frame starts with the 32-byte salt."""
        return self._salt + self._seal(_Type.HEAD, plain, _State.START, _State.BODY)

    def data(self, plain: bytes) -> bytes:
        """Seal a piece of the body."""
        return self._seal(_Type.DATA, plain, _State.BODY, _State.BODY)

    def final(self, plain: bytes) -> bytes:
        """Seal the serialized ResponseFinal."""
        return self._seal(_Type.FINAL, plain, _State.BODY, _State.FINISHED)

    def _seal(self, type_: _Type, plain: bytes, before: _State, after: _State) -> bytes:
        if self._state is not before or self._position >= _MAX_CHUNKS:
            raise CocoonError("response sealer: head, data and final were not called in this order")
        frame = self._cipher.encrypt(type_, self._position, plain)
        self._position += 1
        self._state = after
        return frame


class ResponseOpener:
    """Opens one response. Every method raises `SealingError` for anything but the next honest chunk.

    The first error is the last word: afterwards every call raises. A stream that ended is complete only
    if `finished` is true; call `close` at its end, which raises otherwise.
    """

    __slots__ = ("_cipher", "_dek", "_position", "_recipients", "_sealed_hash", "_sender", "_state")

    def __init__(self, *, dek: bytes, recipients: Sequence[VerifiedEnclave], sealed_hash: bytes) -> None:
        """Made by `seal_request`; `recipients` are those that may answer."""
        self._dek = dek
        self._recipients = tuple(recipients)
        self._sealed_hash = sealed_hash
        self._sender: VerifiedEnclave | None = None
        self._cipher: _ChunkCipher | None = None
        self._position = 0
        self._state = _State.START

    def __repr__(self) -> str:
        return f"ResponseOpener(chunks={self._position})"

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying."""
        raise TypeError("ResponseOpener cannot be pickled or copied")

    @property
    def finished(self) -> bool:
        """True once the authentic final chunk was opened: the response is complete."""
        return self._state is _State.FINISHED

    @property
    def sender(self) -> VerifiedEnclave | None:
        """The recipient under whose key id the response was sealed; None before the head.

        All recipients of one request hold its dek, so this tells apart honest enclaves; what binds one
        of them is the receipt's signature.
        """
        return self._sender

    @property
    def sealed_hash(self) -> bytes:
        """SHA-256 of the serialized SealedRequest, 32 bytes."""
        return self._sealed_hash

    def head(self, frame: bytes) -> bytes:
        """Open the first frame (salt ‖ ciphertext) and find out who sent it."""
        self._require(_State.START)
        salt, ciphertext = frame[:SALT_SIZE], frame[SALT_SIZE:]
        for recipient in self._recipients if len(salt) == SALT_SIZE else ():
            cipher = _ChunkCipher(
                dek=self._dek,
                salt=salt,
                key_id=recipient.binding.seal_key_hash,
                sealed_hash=self._sealed_hash,
            )
            try:
                plain = cipher.decrypt(_Type.HEAD, 0, ciphertext)
            except SealingError:
                continue
            self._cipher, self._sender, self._dek = cipher, recipient, b""
            self._position, self._state = 1, _State.BODY
            return plain
        raise self._broken()

    def data(self, frame: bytes) -> bytes:
        """Open a piece of the body."""
        return self._open(_Type.DATA, frame, _State.BODY)

    def final(self, frame: bytes) -> bytes:
        """Open the final chunk; afterwards nothing more is accepted."""
        return self._open(_Type.FINAL, frame, _State.FINISHED)

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            SealingError: no authentic final chunk came: the response was truncated.
        """
        if not self.finished:
            raise self._broken()

    def _open(self, type_: _Type, frame: bytes, after: _State) -> bytes:
        self._require(_State.BODY)
        if self._cipher is None or self._position >= _MAX_CHUNKS:
            raise self._broken()
        try:
            plain = self._cipher.decrypt(type_, self._position, frame)
        except SealingError:
            raise self._broken() from None
        self._position += 1
        self._state = after
        return plain

    def _require(self, state: _State) -> None:
        if self._state is not state:
            raise self._broken()

    def _broken(self) -> SealingError:
        self._state = _State.BROKEN
        return SealingError()
