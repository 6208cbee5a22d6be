"""The blockchain configuration of a development chain, and the identity of its one validator."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, cast

from nacl.signing import SigningKey
from pytoniq_core import Address, Cell, Slice, begin_cell
from pytoniq_core.boc.hashmap.hashmap import HashMap

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.cells import Reader, read_dict
from cocoon_ton.devnet.dictionary import label_bits, plain_dict
from cocoon_ton.emulator import make_account
from cocoon_ton.emulator.multisig import order_code
from cocoon_ton.emulator.sandbox import ConfigName, load_sandbox

DEFAULT_GLOBAL_ID: Final = -217
"""`global_id` of a development chain (mainnet has -239, testnet -3)."""
_KEY_ID_PREFIX: Final = b"\xc6\xb4\x13\x48"  # TL id of pub.ed25519
_VALIDATOR_SET_MAGIC: Final = -1877581587
_CRC32C_POLYNOMIAL: Final = 0x82F63B78


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDict:
    """The configuration: `root` is the dictionary, `params` its entries."""

    root: Cell
    params: dict[int, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisAccount:
    """An account of the zerostate: `balance` nanoton, a contract if there is `code`.

    `data` may be any state of the contract, not only the one that its address was made from.
    """

    balance: int
    code: Cell | None = None
    data: Cell | None = None

    def shard_account(self, address: Address) -> Cell:
        """Its ``ShardAccount``, with no transactions and no storage fee due."""
        return make_account(address, self.balance, 0, code=self.code, data=self.data)


def make_config(validator_key: bytes, global_id: int, base: ConfigName = "slim") -> ConfigDict:
    """A mainnet configuration with this validator (param 34) and this global id (param 19)."""
    source = Cell.one_from_boc(load_sandbox().config(base)).begin_parse()
    params = _params(source)
    params[19] = begin_cell().store_int(global_id, 32).end_cell()
    params[34] = _validators(validator_key)
    for gone in (32, 33, 35, 36, 37):  # previous and next validator sets
        params.pop(gone, None)
    return ConfigDict(root=plain_dict(params.items(), 32), params=params)


def read_config(boc: bytes) -> ConfigDict:
    """A configuration from its BoC."""
    root = Cell.one_from_boc(boc)
    return ConfigDict(root=root, params=_params(root.begin_parse()))


def _params(source: Slice) -> dict[int, Cell]:
    return HashMap.parse(source, 32, value_deserializer=lambda part: part.load_ref()) or {}


def _validators(public_key: bytes) -> Cell:
    descriptor = begin_cell().store_uint(0x53, 8).store_uint(0x8E81278A, 32)
    descriptor.store_bytes(public_key).store_uint(1, 64)
    # Hashmap 16 ValidatorDescr with the one key 0: a long label of 16 zero bits, then the value itself
    entry = begin_cell().store_bits("110" + format(16, "05b")).store_cell(descriptor.end_cell()).end_cell()
    builder = begin_cell().store_uint(0x12, 8).store_uint(0, 32).store_uint(0xFFFFFFFF, 32)
    builder.store_uint(1, 16).store_uint(1, 16).store_uint(1, 64)
    return cast(Cell, builder.store_bit(1).store_ref(entry).end_cell())


def public_libraries() -> Cell | None:
    """``HashmapE 256 LibDescr``: what mainnet publishes and this chain's users need.

    That is the code of the orders of TON's multisig contracts; None where their package is not installed.
    """
    try:
        code = order_code()
    except UnsupportedError:
        return None
    publisher = (
        begin_cell().store_bits(label_bits("01" * 128, 256)).end_cell()
    )  # nobody: made with the chain
    library = begin_cell().store_uint(0, 2).store_ref(code).store_cell(publisher).end_cell()
    # one entry: a label of all 256 bits, then the value itself
    root = begin_cell().store_bits(label_bits(format(int.from_bytes(code.hash), "0256b"), 256))
    return cast(Cell, root.store_cell(library).end_cell())


def find_library(libraries: Cell | None, hash: bytes) -> Cell | None:
    """The public library with this hash in the dictionary `libraries`."""

    def cell_of(description: Reader) -> Cell:
        cell = description.ref()
        description.uint(description.bits_left)  # who published it
        return cell

    return read_dict(libraries, 256, cell_of).get(int.from_bytes(hash))


def short_key_id(public_key: bytes) -> bytes:
    """``node_id_short``: SHA-256 of the boxed TL public key."""
    return hashlib.sha256(_KEY_ID_PREFIX + public_key).digest()


def validator_set_hash(public_key: bytes, catchain_seqno: int = 0) -> int:
    """``gen_validator_list_hash_short`` of the one-validator set: crc32c of its TL form, unsigned."""
    data = struct.pack("<iII", _VALIDATOR_SET_MAGIC, catchain_seqno, 1)
    return _crc32c(data + public_key + struct.pack("<q", 1) + bytes(32))


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_CRC32C_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def public_key(key: SigningKey) -> bytes:
    """The 32 bytes of an Ed25519 public key."""
    return bytes(key.verify_key)
