"""Snapshots, forks and several liteservers over one chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError, MalformedError, UnsupportedError
from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet, Faults, send_command
from cocoon_ton.devnet.values import BASECHAIN, MASTERCHAIN
from cocoon_ton.emulator import find_sandbox
from cocoon_ton.errors import ChainProofError
from cocoon_ton.network import NetworkConfig

TON = 10**9
TARGET = Address((0, b"\x51" * 32))
OTHER = Address((-1, b"\x52" * 32))


@pytest.fixture(autouse=True)
def _installed() -> None:
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["memory", "disk"])
async def net(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Devnet]:
    where = None if request.param == "memory" else tmp_path / "chain"
    async with Devnet.start(where, block_interval=None, liteservers=3) as net:
        yield net


def network_of(net: Devnet, *servers: int) -> NetworkConfig:
    listed = [net.config["liteservers"][number] for number in servers or range(3)]
    config = dict(net.config, liteservers=listed)
    return NetworkConfig(name="snap", global_id=net.global_id, registry="", global_config=config)


def money(net: Devnet, address: Address = TARGET) -> int:
    name = address.hash_part if address.wc == 0 else b"\xff" + address.hash_part
    entry = net.chain.account(name)
    return 0 if entry is None else entry.balance


class TestSnapshots:
    async def test_back_and_forth(self, net: Devnet) -> None:
        net.fund(TARGET, TON)
        net.fund(OTHER, TON)
        net.save("one")
        saved = net.chain.master
        net.fund(TARGET, TON)
        net.tick(70)
        net.save("two")
        net.restore("one")
        assert (money(net), money(net, OTHER)) == (TON, TON)
        assert net.chain.master.seqno == saved.seqno + 1
        assert net.chain.block(MASTERCHAIN, saved.seqno) == saved
        assert net.chain.block(MASTERCHAIN, saved.seqno + 2) is None
        net.restore("two")
        assert money(net) == 2 * TON
        assert net.snapshots.names() == ["one", "two"]

    async def test_old_states_are_those_of_the_snapshot(self, net: Devnet) -> None:
        net.save("empty")
        net.fund(TARGET, TON)
        net.restore("empty")
        net.fund(TARGET, 2 * TON)
        net.tick(70)
        for seqno in range(net.chain.master.seqno):
            for workchain in (BASECHAIN, MASTERCHAIN):
                block = net.chain.block(workchain, seqno)
                assert block is not None
                assert net.chain.state(block).hash == block.state.hash

    async def test_money_is_spent_once_in_each_history(self, net: Devnet) -> None:
        net.save("before")
        for _ in range(3):
            net.restore("before")
            net.fund(TARGET, TON)
            assert money(net) == TON

    async def test_time_is_that_of_the_snapshot(self, net: Devnet) -> None:
        before = net.chain.now()
        net.save("early")
        net.warp(10_000)
        net.restore("early")
        assert before <= net.chain.now() < before + 5000

    async def test_a_name_is_taken_again(self, net: Devnet) -> None:
        net.save("x")
        net.fund(TARGET, TON)
        net.save("x")
        net.fund(TARGET, TON)
        net.restore("x")
        assert money(net) == TON
        net.snapshots.remove("x")
        assert net.snapshots.names() == []

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "ä", "x" * 65, "a\0"])
    async def test_bad_names(self, net: Devnet, name: str) -> None:
        for use in (net.save, net.restore, net.snapshots.remove):
            with pytest.raises(ConfigError, match="no name"):
                use(name)

    async def test_unknown_names(self, net: Devnet) -> None:
        net.save("known")
        head = net.chain.master
        with pytest.raises(ConfigError, match="no snapshot") as caught:
            net.restore("unknown")
        assert "known" in caught.value.hint
        with pytest.raises(ConfigError, match="no snapshot"):
            net.snapshots.remove("unknown")
        assert net.chain.master == head

    async def test_clients_that_saw_more_notice(self, net: Devnet) -> None:
        """A chain that was put back is a fork to those who saw what came after."""
        net.save("past")
        net.fund(TARGET, TON)
        async with LiteChain(network_of(net), head_ttl=0) as chain:
            seen = await chain.head()
            net.restore("past")
            while net.chain.master.seqno < seen.seqno:
                net.tick()
            with pytest.raises(ChainProofError, match="forked"):
                await chain.head()
        async with LiteChain(network_of(net), head_ttl=0) as fresh:
            assert not (await fresh.account(TARGET)).exists


class TestOnDisk:
    async def test_snapshots_survive_a_restart(self, tmp_path: Path) -> None:
        async with Devnet.start(tmp_path / "chain", block_interval=None) as net:
            net.fund(TARGET, TON)
            net.save("kept")
            net.fund(TARGET, TON)
        folder = tmp_path / "chain" / "snapshots"
        assert [path.name for path in folder.iterdir()] == ["kept.sqlite"]
        assert folder.stat().st_mode & 0o77 == 0
        assert (folder / "kept.sqlite").stat().st_mode & 0o77 == 0
        async with Devnet.start(tmp_path / "chain", block_interval=None) as net:
            assert money(net) == 2 * TON
            net.restore("kept")
            assert money(net) == TON
            head = net.chain.master
        async with Devnet.start(tmp_path / "chain", block_interval=None) as net:
            assert money(net) == TON
            assert net.chain.block(MASTERCHAIN, head.seqno) == head

    async def test_a_snapshot_of_another_chain_is_refused(self, tmp_path: Path) -> None:
        for name in "ab":
            async with Devnet.start(tmp_path / name, block_interval=None) as net:
                net.save("mine")
        stranger = (tmp_path / "b/snapshots/mine.sqlite").read_bytes()
        (tmp_path / "a/snapshots/mine.sqlite").write_bytes(stranger)
        (tmp_path / "a/snapshots/junk.sqlite").write_bytes(b"junk" * 1000)
        async with Devnet.start(tmp_path / "a", block_interval=None) as net:
            head = net.chain.master
            with pytest.raises(ConfigError, match="another chain"):
                net.restore("mine")
            with pytest.raises(ConfigError):
                net.restore("junk")
            assert net.chain.master == head

    async def test_through_the_control_port(self, tmp_path: Path) -> None:
        directory = tmp_path / "chain"
        async with Devnet.start(directory, block_interval=None) as net:
            assert (await send_command(directory, "save", name="s"))["snapshots"] == ["s"]
            await send_command(directory, "fund", address=TARGET.to_str(), amount=TON)
            await send_command(directory, "restore", name="s")
            assert money(net) == 0
            assert (await send_command(directory, "status"))["snapshots"] == ["s"]
            with pytest.raises(ConfigError, match="no snapshot"):
                await send_command(directory, "restore", name="t")
            assert (await send_command(directory, "forget", name="s"))["snapshots"] == []


class TestSeveralLiteservers:
    async def test_one_chain_many_servers(self, net: Devnet) -> None:
        assert len({server.port for server in net.liteservers}) == 3
        net.fund(TARGET, TON)
        for number in range(3):
            async with LiteChain(network_of(net, number)) as chain:
                assert (await chain.account(TARGET)).balance == TON

    async def test_each_lies_for_itself(self, net: Devnet) -> None:
        net.fund(TARGET, TON)
        net.liteservers[1].faults.hidden_accounts.add(TARGET.hash_part)
        async with LiteChain(network_of(net, 1)) as chain:
            with pytest.raises(ChainProofError):
                await chain.account(TARGET)
        async with LiteChain(network_of(net, 0)) as chain:
            assert (await chain.account(TARGET)).balance == TON

    async def test_a_fork_goes_its_own_way(self, net: Devnet) -> None:
        net.fund(TARGET, TON)
        common = net.chain.master
        fork = net.fork(2)
        net.tick(2)
        assert fork.block(MASTERCHAIN, common.seqno) == common
        assert fork.master.seqno == net.chain.master.seqno
        assert fork.master.id != net.chain.master.id
        net.fund(TARGET, TON)  # on the true chain only
        async with LiteChain(network_of(net, 2)) as chain:  # validly signed
            assert (await chain.account(TARGET)).balance == TON
            assert (await chain.head()).root_hash == fork.master.id.root_hash
        net.warp(100)
        assert fork.master.utime == net.chain.master.utime
        net.join(2)
        async with LiteChain(network_of(net, 2)) as chain:
            assert (await chain.account(TARGET)).balance == 2 * TON

    async def test_ports_in_a_row_and_identities_stay(self, tmp_path: Path) -> None:
        async with Devnet.start(tmp_path / "chain", block_interval=None, liteservers=2) as net:
            first = net.config["liteservers"]
        port = _free_row(2)
        async with Devnet.start(tmp_path / "chain", port=port, block_interval=None, liteservers=2) as net:
            second = net.config["liteservers"]
        assert [server["port"] for server in second] == [port, port + 1]
        assert [server["id"] for server in first] == [server["id"] for server in second]
        assert len({server["id"]["key"] for server in first}) == 2

    @pytest.mark.parametrize("count", [0, 17])
    async def test_count_is_bounded(self, count: int) -> None:
        with pytest.raises(ConfigError, match="liteservers"):
            async with Devnet.start(liteservers=count):
                pass


class TestSwitches:
    async def test_by_control_port(self, tmp_path: Path) -> None:
        directory = tmp_path / "chain"
        async with Devnet.start(directory, block_interval=None, liteservers=2) as net:
            net.fund(TARGET, TON)
            raw = TARGET.to_str(is_user_friendly=False)
            switches = {
                "delay": 0.01,
                "drop": ["getTime"],
                "refuse": ["getVersion"],
                "stale_head": 2,
                "hide": [raw],
                "forge": {OTHER.to_str(): "77"},
                "lying_getter": -5,
                "claimed_key_block": net.config["validator"]["init_block"],
                "duplicate_signatures": 2,
                "fork": True,
            }
            state = await send_command(directory, "faults", server=1, set=switches)
            faults = net.liteservers[1].faults
            assert (faults.delay, faults.drop, faults.refuse, faults.stale_head) == (
                0.01, {"getTime"}, {"getVersion"}, 2
            )  # fmt: skip
            assert faults.hidden_accounts == {TARGET.hash_part}
            assert set(faults.forged_accounts) == {b"\xff" + OTHER.hash_part}
            assert (faults.lying_getter, faults.duplicate_signatures) == (-5, 2)
            assert faults.claimed_key_block == net.init_block
            assert net.liteservers[1].chain is not net.chain
            assert len(state["faults"]) == len(switches)
            assert net.faults == Faults()  # the first one is honest
            status = await send_command(directory, "status")
            assert [bool(server["faults"]) for server in status["liteservers"]] == [False, True]
            state = await send_command(directory, "faults", server=1, clear=True)
            assert state["faults"] == []
            assert net.liteservers[1].chain is net.chain

    @pytest.mark.parametrize(
        "switches",
        [
            {"unknown": 1},
            {"delay": -1},
            {"delay": "soon"},
            {"delay": 1e9},
            {"drop": "getTime"},
            {"stale_head": 0},
            {"stale_head": "x"},
            {"hide": ["nobody"]},
            {"hide": 5},
            {"forge": {TARGET.to_str(): -1}},
            {"forge": ["x"]},
            {"claimed_key_block": {"seqno": 1}},
            {"duplicate_signatures": 0},
            {"duplicate_signatures": 99},
            {"lying_getter": 1.5},
            {"fork": "yes"},
        ],
    )
    async def test_bad_values_change_nothing(self, tmp_path: Path, switches: dict[str, object]) -> None:
        directory = tmp_path / "chain"
        async with Devnet.start(directory, block_interval=None) as net:
            with pytest.raises(MalformedError):
                await send_command(directory, "faults", set={"drop": ["getTime"]} | switches)
            assert net.faults == Faults()
            assert net.liteservers[0].chain is net.chain

    async def test_no_such_server(self, tmp_path: Path) -> None:
        directory = tmp_path / "chain"
        async with Devnet.start(directory, block_interval=None):
            for number in (-1, 1):
                with pytest.raises(MalformedError):
                    await send_command(directory, "faults", server=number)


async def test_waiting_queries_go_on_over_a_fork() -> None:
    """Somebody waits for a block; the server changes to a fork; the block of the fork ends the wait."""
    async with Devnet.start(block_interval=None) as net:
        server = net.liteservers[0]
        seqno = net.chain.master.seqno
        waiting = asyncio.create_task(server.server._wait(seqno + 1, 5))
        await asyncio.sleep(0)
        net.tick()
        await waiting


def _free_row(count: int) -> int:
    """A port such that it and the next ones are free."""
    import socket

    for _ in range(50):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        try:
            for number in range(count):
                socket.create_server(("127.0.0.1", port + number)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free ports in a row")
