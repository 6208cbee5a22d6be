"""The TVM and the transaction executor of TON, called from Python."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from pytoniq_core import Address, Cell, MessageAny
from pytoniq_core.crypto.crc import crc16

from cocoon_ton.emulator.boc import from_base64, read_boc, to_base64
from cocoon_ton.emulator.errors import EmulatorError, GetMethodError, MessageNotAcceptedError
from cocoon_ton.emulator.host import Host, shared_host
from cocoon_ton.emulator.sandbox import ConfigName, load_sandbox
from cocoon_ton.emulator.stack import StackInput, StackValue, read_stack, write_stack, write_value
from cocoon_ton.emulator.transaction import EmulatedTransaction, parse_transaction

GET_METHOD_GAS: Final = 1_000_000
_FULL_SHARD: Final = 1 << 63
_KEPT_TEXTS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class McBlockId:
    """A masterchain block as contracts see it. Hashes are 32 bytes."""

    seqno: int
    root_hash: bytes
    file_hash: bytes

    def to_stack(self) -> tuple[StackInput, ...]:
        """``[workchain, shard, seqno, root_hash, file_hash]``."""
        root, file = int.from_bytes(self.root_hash, "big"), int.from_bytes(self.file_hash, "big")
        return (-1, _FULL_SHARD, self.seqno, root, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrevBlocks:
    """What ``PREVMCBLOCKS``, ``PREVKEYBLOCK`` and ``PREVMCBLOCKS_100`` answer.

    `last` are the newest 16 blocks, newest first; `last_100` the newest 16 with a seqno divisible by
    100, newest first.
    """

    last: tuple[McBlockId, ...]
    key: McBlockId
    last_100: tuple[McBlockId, ...]

    def to_stack(self) -> tuple[StackInput, ...]:
        """The tuple of ``c7`` entry 13."""
        return (
            tuple(block.to_stack() for block in self.last),
            self.key.to_stack(),
            tuple(block.to_stack() for block in self.last_100),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMethodResult:
    """The outcome of a getter. `stack_boc` is the emulator's own ``VmStack``."""

    exit_code: int
    gas_used: int
    stack_boc: bytes
    vm_log: str

    @property
    def stack(self) -> list[StackValue]:
        """The stack, last value on top."""
        return read_stack(read_boc(self.stack_boc))

    def unwrap(self) -> list[StackValue]:
        """The stack; GetMethodError if the exit code is neither 0 nor 1."""
        if self.exit_code not in (0, 1):
            raise GetMethodError(
                f"the getter ended with exit code {self.exit_code}", vm_exit_code=self.exit_code
            )
        return self.stack


def method_id(method: str | int) -> int:
    """Number of a getter: crc16 of its name with bit 16 set."""
    if isinstance(method, int):
        return method
    return int.from_bytes(crc16(method.encode()), "big") | 0x10000


class Emulator:
    """TON's executor with one blockchain configuration.

    `libraries` is the dictionary of public libraries (hash to a value with the cell) for calls that bring none.

    Cheap to make (1 ms) once the process has loaded the wasm: all emulators share one instance.
    Results depend only on the arguments, except for contracts that use random numbers without a
    `random_seed`.
    """

    def __init__(
        self,
        config: Cell | ConfigName = "slim",
        *,
        libraries: Cell | None = None,
        host: Host | None = None,
    ) -> None:
        self._host: Host | None = host
        self._libraries = libraries
        self._pointer = 0
        self._prev: tuple[PrevBlocks, str] | None = None
        self._given = (False, False)
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self.set_config(config)

    def set_config(self, config: Cell | str) -> None:
        """Use another configuration: a dictionary cell, or one of the sandbox's by name."""
        if isinstance(config, str):
            config = Cell.one_from_boc(load_sandbox().config(config))
        self.config: Cell = config
        self._config_text = to_base64(config)
        self._release()

    def _release(self) -> None:
        if self._pointer and self._host is not None:
            self._host.discard("_destroy_emulator", self._pointer)
        self._pointer = 0

    def __del__(self) -> None:
        self._release()

    def _ready(self) -> Host:
        if self._host is None or self._host.dead:
            self._host, self._pointer = shared_host(), 0
        if not self._pointer:
            self._pointer = self._host.call_int("_create_emulator", self._config_text, 0)
            if not self._pointer:
                raise EmulatorError("the emulator refused the blockchain configuration")
        return self._host

    def transaction(
        self,
        shard_account: Cell,
        message: Cell,
        now: int,
        lt: int,
        *,
        libraries: Cell | None = None,
        prev_blocks: PrevBlocks | None = None,
        random_seed: bytes | None = None,
        ignore_signatures: bool = False,
    ) -> EmulatedTransaction:
        """Run one message (internal or external) against an account.

        `shard_account` is a ``ShardAccount`` (`EMPTY_ACCOUNT` for none). Raises
        MessageNotAcceptedError for an external message that the contract refuses, EmulatorError for
        input that is no account or message.
        """
        parameters: dict[str, object] = {
            "utime": now,
            "lt": str(lt),
            "rand_seed": random_seed.hex() if random_seed is not None else "",
            "ignore_chksig": ignore_signatures,
            "debug_enabled": False,
        }
        self._add_prev_blocks(parameters, prev_blocks)
        destination = _destination(message)
        libraries = self._libraries if libraries is None else libraries
        self._forget(libraries, prev_blocks)
        host = self._ready()
        output = _output(
            host.call_text(
                "_emulate_with_emulator",
                self._pointer,
                to_base64(libraries) if libraries is not None else 0,
                self._text_of(shard_account),
                to_base64(message),
                json.dumps(parameters),
            )
        )
        if not output["success"]:
            _refused(output)
        after = from_base64(output["shard_account"])
        self._texts[bytes(after.hash)] = output["shard_account"]
        if len(self._texts) > _KEPT_TEXTS:
            self._texts.popitem(last=False)
        return parse_transaction(
            from_base64(output["transaction"]),
            after,
            destination,
            from_base64(output["actions"]) if output.get("actions") else None,
            str(output.get("vm_log", "")),
        )

    def get_method(
        self,
        code: Cell,
        data: Cell,
        method: str | int,
        stack: Sequence[StackInput] = (),
        *,
        address: Address,
        now: int,
        balance: int = 0,
        gas_limit: int = GET_METHOD_GAS,
        libraries: Cell | None = None,
        prev_blocks: PrevBlocks | None = None,
        stack_boc: Cell | None = None,
    ) -> GetMethodResult:
        """Run a getter. `stack_boc` is a ready ``VmStack`` and replaces `stack`."""
        parameters: dict[str, object] = {
            "code": to_base64(code),
            "data": to_base64(data),
            "verbosity": 0,
            "libs": to_base64(public) if (public := libraries or self._libraries) is not None else "",
            "address": address.to_str(),
            "unixtime": now,
            "balance": str(balance),
            "rand_seed": "00" * 32,
            "gas_limit": str(gas_limit),
            "method_id": method_id(method),
            "debug_enabled": False,
        }
        self._add_prev_blocks(parameters, prev_blocks)
        initial = to_base64(stack_boc if stack_boc is not None else write_stack(stack))
        host = self._ready()
        text = host.call_text("_run_get_method", json.dumps(parameters), initial, self._config_text)
        output = _output(text)
        if not output["success"]:
            raise EmulatorError(f"the getter could not be run: {output.get('error')}")
        return GetMethodResult(
            exit_code=int(output["vm_exit_code"]),
            gas_used=int(output["gas_used"]),
            stack_boc=base64.b64decode(output["stack"]),
            vm_log=str(output.get("vm_log", "")),
        )

    def _text_of(self, shard_account: Cell) -> str:
        """As the emulator wrote it, if it did so lately: writing a large account takes longer than running it."""
        return self._texts.get(bytes(shard_account.hash)) or to_base64(shard_account)

    def _forget(self, libraries: Cell | None, prev_blocks: PrevBlocks | None) -> None:
        # the emulator keeps the libraries and blocks of the last call that gave any
        given = (libraries is not None, prev_blocks is not None)
        if any(before and not now for before, now in zip(self._given, given, strict=True)):
            self._release()
        self._given = given

    def _add_prev_blocks(self, parameters: dict[str, object], blocks: PrevBlocks | None) -> None:
        if blocks is None:
            return
        if self._prev is None or self._prev[0] is not blocks:
            self._prev = (blocks, to_base64(write_value(blocks.to_stack())))
        parameters["prev_blocks_info"] = self._prev[1]


def _output(text: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(text)
    if answer.get("fail"):
        raise EmulatorError(f"the emulator refused its input: {answer.get('message', '')}")
    output: dict[str, Any] = answer["output"]
    return output


def _destination(message: Cell) -> Address:
    try:
        return cast(Address, MessageAny.deserialize(message.begin_parse()).info.dest)
    except Exception as error:  # pytoniq-core raises whatever it meets
        raise EmulatorError(f"not a message: {error}") from error


def _refused(output: dict[str, Any]) -> None:
    error, code = str(output.get("error", "")), output.get("vm_exit_code")
    if code is None and "not accepted" not in error and "inbound external message" not in error:
        raise EmulatorError(f"the emulator refused the transaction: {error}")
    raise MessageNotAcceptedError(
        error, vm_exit_code=None if code is None else int(code), vm_log=str(output.get("vm_log", ""))
    )
