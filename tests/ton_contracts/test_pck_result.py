"""What a receiver of Pck's message checks, in a contract of its own that is compiled here."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pytoniq_core import Address, Builder, Cell

from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import opcodes
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import Reader, begin, finish
from cocoon_ton.code import pck_code
from cocoon_ton.emulator import Emulator, TestChain, contract_address
from cocoon_ton.pck import PckIdentity

from .pck_kit import PckWorld, seeded

ROOT = Path(__file__).resolve().parents[2] / "ton_contracts"
NOW = 1_790_000_000
SOURCE = """
import "pck/messages"
import "pck/result"

struct Receiver {
    ruleHash: uint256
    bindingHash: uint256
    pckCode: cell
}

fun onInternalMessage(in: InMessage) {
    val msg = PckAttested.fromSlice(in.body);
    var st = Receiver.fromCell(contract.getData());
    val statement = msg.statement.load();
    assert (statement.rule.hash() == st.ruleHash) throw 600;
    assert (msg.isGenuine(in.senderAddress, st.pckCode)) throw 601;
    st.bindingHash = statement.binding.hash();
    contract.setData(st.toCell());
}
"""
SCRIPT = """
const { readFileSync } = require('node:fs')
const { runTolkCompiler } = require('@ton/tolk-js')
const read = (path) => path === 'Receiver.tolk' ? process.argv[1] : readFileSync('contracts/' + path, 'utf8')
runTolkCompiler({ entrypointFileName: 'Receiver.tolk', fsReadCallback: read })
  .then((result) => console.log(JSON.stringify(result)))
"""


@pytest.fixture(scope="module")
def code() -> Cell:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules/@ton/tolk-js").is_dir():
        pytest.skip("needs Node.js and `npm ci` in ton_contracts")
    done = subprocess.run(
        [node, "-e", SCRIPT, SOURCE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    result = json.loads(done.stdout)
    assert result["status"] == "ok", result
    return Cell.one_from_boc(result["codeBoc64"])


@pytest.fixture
def world(emulator: Emulator) -> PckWorld:
    made = PckWorld.create(
        TestChain(emulator=emulator, now=NOW), DevPlatform.create(NOW, seeded("platform"))
    )
    assert made.verify().success
    return made


def receiver(world: PckWorld, code: Cell, rule: AttestationRule) -> Address:
    """A receiver that goes by this rule."""
    data = finish(Builder().store_bytes(rule.cell.hash).store_uint(0, 256).store_ref(pck_code().cell))
    address = contract_address(code, data)
    world.chain.add_account(address, 10**9, code=code, data=data)
    return address


def seen(world: PckWorld, address: Address) -> bytes:
    """Hash of the binding that the receiver took in."""
    data = world.chain.account(address).data
    assert data is not None
    reader = Reader(data)
    reader.raw(32)
    return reader.raw(32)


def test_a_genuine_result_is_taken(world: PckWorld, code: Cell) -> None:
    node = receiver(world, code, world.rule)
    assert world.attest(node=node).success
    assert seen(world, node) == world.binding.hash


def test_another_rule_is_refused(world: PckWorld, code: Cell) -> None:
    """Whoever asks chooses the rule that Pck applies; the receiver knows which one it must be."""
    node = receiver(world, code, replace(world.rule, min_pce_svn=14))
    result = world.attest(node=node)
    assert result[1].exit_code == 600
    assert result[-1].address == world.owner


def test_another_anchor_is_refused(world: PckWorld, code: Cell) -> None:
    """A contract whose chain starts from a root that somebody made up, and a rule with the true anchor."""
    rule = replace(world.rule, anchor=b"\x0c" * 32)
    node = receiver(world, code, rule)
    result = world.attest(None, world.statement(rule=rule), node=node)
    assert result.first.success
    assert result[1].exit_code == 601


def forged(world: PckWorld, platform: Cell) -> Cell:
    """The message of a contract that is no Pck."""
    return finish(
        begin(opcodes.PCK_ATTESTED)
        .store_uint(1, 64)
        .store_address(world.owner)
        .store_bytes(bytes(32))
        .store_ref(platform)
        .store_ref(world.statement().cell)
    )


def test_a_message_from_anybody_else_is_refused(world: PckWorld, code: Cell) -> None:
    node = receiver(world, code, world.rule)
    data = world.chain.account(world.address).data
    assert data is not None
    body = forged(world, data)
    for sender in (world.owner, node):
        assert world.chain.send_internal(node, 10**8, body, sender=sender).first.exit_code == 601
    assert world.chain.send_internal(node, 10**8, body, sender=world.address).success


def test_state_that_was_not_verified_has_another_address(world: PckWorld, code: Cell) -> None:
    """Made-up facts in the initial data of a contract with the true code do not help."""
    node = receiver(world, code, world.rule)
    identity = PckIdentity(anchor=world.root, leaf_hash=world.identity().leaf_hash)
    key = finish(Builder().store_bytes(bytes(64)))
    facts = (
        begin(opcodes.PCK_STORAGE)
        .store_bytes(b"\xff" * (4 + 6 + 2 + 16 + 32 + 32 + 2))
        .store_ref(identity.cell)
        .store_maybe_ref(key)
    )
    liar = contract_address(pck_code().cell, finish(facts))
    assert liar != world.address
    body = forged(world, finish(facts))
    assert world.chain.send_internal(node, 10**8, body, sender=liar).first.exit_code == 601
