"""One liteserver of a chain: its key, its port, its faults, and the chain or fork that it shows."""

from __future__ import annotations

import base64
import hashlib

from nacl.signing import SigningKey

from cocoon_attestation.errors import ConfigError
from cocoon_ton.devnet.adnl import AdnlServer
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.genesis import public_key
from cocoon_ton.devnet.liteserver import LiteServer
from cocoon_ton.devnet.signatures import SignatureMode

LOOPBACK = 0x7F000001


class Endpoint:
    """A liteserver on 127.0.0.1. Several of them share one chain, and each can lie in its own way.

    `port` is 0 until it listens. `chain` is what it shows: the true one, or a fork.
    """

    def __init__(
        self, chain: Chain, key: SigningKey, validator: SigningKey, *, mode: SignatureMode
    ) -> None:
        self.faults = Faults()
        self.port = 0
        self.chain = chain
        self._key = key
        self._validator = validator
        self._mode = mode
        self.server = self._serving(chain)
        self._adnl = AdnlServer(key, self._query)

    async def start(self, port: int) -> None:
        """Begin to listen (0: any port). Raises ConfigError if the port is taken."""
        try:
            self.port = await self._adnl.start(port)
        except OSError as error:
            raise ConfigError(f"cannot listen on port {port}: {error.strerror}") from error

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        await self._adnl.stop()

    def show(self, chain: Chain) -> None:
        """Answer about another chain from now on."""
        self.chain, waiting = chain, self.server
        self.server = self._serving(chain)
        waiting.new_block()

    def new_block(self) -> None:
        """Wake those who wait for a block."""
        self.server.new_block()

    def document(self) -> dict[str, object]:
        """The entry in ``liteservers`` of a global configuration."""
        key = base64.b64encode(public_key(self._key)).decode()
        return {"ip": LOOPBACK, "port": self.port, "id": {"@type": "pub.ed25519", "key": key}}

    def _serving(self, chain: Chain) -> LiteServer:
        return LiteServer(chain, self._validator, mode=self._mode, faults=self.faults)

    async def _query(self, data: bytes) -> bytes:
        return await self.server.query(data)


def liteserver_key(first: SigningKey, number: int) -> SigningKey:
    """Key of the liteserver `number`; the first one's is in ``keys.json``, the others follow from it."""
    if number == 0:
        return first
    seed = hashlib.sha256(b"cocoon development liteserver %d " % number + bytes(first)).digest()
    return SigningKey(seed)
