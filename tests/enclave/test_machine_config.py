"""Kinds of machines in the configuration: what each needs, what is measured of it, and what is refused."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoon_attestation.errors import ConfigError, EvidenceRejectedError, UnsupportedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.gpu_summary import Joined, parse_gpu_summary
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.rtmr3 import NO_GPU
from cocoon_attestation.types import Digest32
from cocoon_enclave.attestation.machine import make_machine
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_node import simulated_snp_release
from cocoon_enclave.attestation.simulated_vendors import DevVendors
from cocoon_enclave.config import EnclaveConfig, load_config
from cocoon_enclave.gpu_config import GpuConfig, gpu_config
from cocoon_enclave.runtime import Enclave

Load = Callable[[str], EnclaveConfig]


@pytest.fixture(scope="module")
def vendor_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated platform that knows all vendors."""
    directory = tmp_path_factory.mktemp("vendors") / "p"
    now = int(time.time()) - 3600
    vendors = DevVendors.create(now, secrets.token_bytes)
    DevPlatform.create(now, secrets.token_bytes, vendors).save(directory)
    return directory


@pytest.fixture
def full(config: EnclaveConfig, vendor_dir: Path) -> EnclaveConfig:
    return dataclasses.replace(config, platform=vendor_dir, release=DevPlatform.load(vendor_dir).release())


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a text as a configuration file."""

    def read(text: str) -> EnclaveConfig:
        file = tmp_path / "enclave.toml"
        file.write_text(text)
        return load_config(file)

    return read


def snp(config: EnclaveConfig, gpus: int = 0, **changes: Any) -> EnclaveConfig:
    """The same on a simulated SEV-SNP machine."""
    release = simulated_snp_release([model.digest for model in config.models], gpus=gpus)
    gpu = gpu_config(gpus) if gpus else None
    return dataclasses.replace(config, tee="simulated-snp", release=release, gpu=gpu, **changes)


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_round_trip(full: EnclaveConfig, load: Load, gpus: int) -> None:
    for config in (snp(full, gpus), dataclasses.replace(full, gpu=gpu_config(gpus) if gpus else None)):
        again = load(config.to_toml())
        assert again == config
        assert again.config_hash == config.config_hash


def hardware(config: EnclaveConfig, tee: str, **changes: Any) -> EnclaveConfig:
    return dataclasses.replace(config, tee=tee, platform=None, **changes)


def test_hardware_round_trip(full: EnclaveConfig, load: Load, tmp_path: Path) -> None:
    rules = tmp_path / "gpu.toml"
    rules.write_text('modes = ["ppcie"]\nminimum_driver = { GH100 = "580.1" }\n')
    text = hardware(full, "tdx", collateral=tmp_path / "c.json").to_toml()
    text += '\n[gpu]\ncount = 8\nmanifests = "rims"\npolicy = "gpu.toml"\nocsp = "http://127.0.0.1:1/"\n'
    found = load(text)
    assert found.gpu is not None
    assert found.gpu.rules.minimum_driver == {"GH100": "580.1"}
    assert found.gpu.rules.gpu_count == 8
    assert found.gpu.manifests == tmp_path / "rims"
    assert load(found.to_toml()) == found
    release = snp(full).release
    other = hardware(full, "snp", release=release, endorsements=tmp_path / "e.json")
    assert load(other.to_toml()) == other


def test_what_of_the_gpus_is_measured(full: EnclaveConfig) -> None:
    assert "gpu" not in full.measured
    one = dataclasses.replace(full, gpu=gpu_config(1))
    hashes = {full.config_hash, one.config_hash}
    for gpu in (
        gpu_config(2),
        GpuConfig(count=1, rules=GpuPolicy(gpu_count=1, minimum_driver={"GH100": "600.0"})),
    ):
        hashes.add(dataclasses.replace(full, gpu=gpu).config_hash)
    assert len(hashes) == 4
    for gpu in (
        dataclasses.replace(gpu_config(1), manifests=Path("/x")),
        dataclasses.replace(gpu_config(1), mode="multi"),
        dataclasses.replace(gpu_config(1), ocsp="http://127.0.0.1/"),
    ):
        assert dataclasses.replace(full, gpu=gpu).config_hash == one.config_hash


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("[gpu]", r"gpu\.count"),
        ("[gpu]\ncount = 0", r"gpu\.count"),
        ("[gpu]\ncount = 17", r"gpu\.count"),
        ('[gpu]\ncount = "8"', r"gpu\.count"),
        ("[gpu]\ncount = 1\nswitches = 4", "unknown key: gpu.switches"),
        ('[gpu]\ncount = 1\nmode = "nvlink"', r"gpu\.mode"),
        ('[gpu]\ncount = 1\nmanifests = "rims"', "unknown key: gpu.manifests"),
        ('[gpu]\ncount = 1\nocsp = "https://x"', "unknown key: gpu.ocsp"),
        ('[gpu]\ncount = 1\npolicy = "absent.toml"', r"gpu\.policy"),
        ('[gpu]\ncount = 1\npolicy = "bad.toml"', "unknown"),
        ('[gpu]\ncount = 1\npolicy = "roots.toml"', "dev_device_roots"),
        ('[gpu]\ncount = 1\npolicy = "count.toml"', "gpu_count"),
        ('[gpu]\ncount = 1\npolicy = "loose.toml"', "waives"),
        ('[gpu]\ncount = 1\npolicy = "text.toml"', r"gpu\.policy"),
    ],
)
def test_bad_gpu_tables(full: EnclaveConfig, load: Load, tmp_path: Path, table: str, reason: str) -> None:
    for name, text in {
        "bad": "colour = 1",
        "roots": 'dev_device_roots = ["AA=="]',
        "count": "gpu_count = 2",
        "loose": "minimum_driver = {}",
        "text": "[",
    }.items():
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load(full.to_toml() + "\n" + table + "\n")


def test_settings_of_another_kind_of_machine(full: EnclaveConfig, load: Load, tmp_path: Path) -> None:
    gpu = "\n[gpu]\ncount = 1\n"
    cases = [
        (dataclasses.replace(full, collateral=tmp_path / "c"), "", "tee.collateral"),
        (dataclasses.replace(full, endorsements=tmp_path / "e"), "", "tee.endorsements"),
        (snp(full, platform=None), "", "tee.platform"),
        (hardware(full, "tdx"), "", "tee.collateral"),
        (hardware(full, "tdx", collateral=tmp_path / "c", endorsements=tmp_path), "", "tee.endorsements"),
        (hardware(full, "tdx", collateral=tmp_path / "c"), gpu, "gpu.manifests"),
        (
            hardware(full, "tdx", collateral=tmp_path / "c"),
            gpu + 'manifests="x"\nmode="multi"\n',
            "gpu.mode",
        ),
        (hardware(full, "snp"), "", "node.release"),
        (dataclasses.replace(full, tee="simulated-snp"), "", "node.release"),
        (dataclasses.replace(snp(full), tee="simulated"), "", "node.release"),
        (snp(full), gpu, "demands 0 GPUs, not 1"),
        (dataclasses.replace(snp(full, 8), gpu=None), "", "demands 8 GPUs, not 0"),
    ]
    for config, more, reason in cases:
        with pytest.raises(ConfigError, match=reason):
            load(config.to_toml() + more)


def test_a_snp_image_serves_the_models_that_were_launched(full: EnclaveConfig, load: Load) -> None:
    first = full.models[0]
    second = dataclasses.replace(first, name="other", digest=Digest32(b"\x05" * 32))
    both = snp(dataclasses.replace(full, models=(first, second)))
    assert load(both.to_toml()) == both
    for models in ((first,), (second, first), (second,)):
        with pytest.raises(ConfigError, match="models"):
            load(dataclasses.replace(both, models=models).to_toml())


# ---- machines


def test_simulated_machines(full: EnclaveConfig) -> None:
    plain = make_machine(full, time.time)
    assert (plain.attester.kind, plain.pass_gate(), plain.simulated) == (TeeKind.TDX, NO_GPU, True)
    board = make_machine(dataclasses.replace(full, gpu=gpu_config(8)), time.time)
    summary = parse_gpu_summary(board.pass_gate())
    assert (summary.gpus, len(summary.devices), summary.joined) == (8, 12, Joined.PROTECTED_PCIE)
    again = make_machine(dataclasses.replace(full, gpu=gpu_config(8)), time.time)
    assert parse_gpu_summary(again.pass_gate()).devices == summary.devices  # the same machine
    for count, mode, joined in ((1, "", Joined.ALONE), (3, "", Joined.NVLINK), (2, "single", Joined.ALONE)):
        used = dataclasses.replace(full, gpu=gpu_config(count, mode=mode))
        found = parse_gpu_summary(make_machine(used, time.time).pass_gate())
        assert (found.gpus, found.joined) == (count, joined)
    guest = make_machine(snp(full), time.time)
    assert (guest.attester.kind, guest.simulated) == (TeeKind.SEV_SNP, True)
    assert plain.dev_root == guest.dev_root == DevPlatform.load(full.platform or Path()).root_der


def test_machines_that_are_not_there(full: EnclaveConfig, config: EnclaveConfig, tmp_path: Path) -> None:
    """This computer has neither TEE nor GPU: every kind says so by its own error."""
    with pytest.raises(UnsupportedError, match="not a TDX guest"):
        make_machine(hardware(full, "tdx", collateral=tmp_path / "c"), time.time)
    with pytest.raises(UnsupportedError):
        make_machine(hardware(full, "snp", release=snp(full).release), time.time)
    with pytest.raises(ConfigError, match="8 GPUs, not 4"):
        make_machine(dataclasses.replace(full, gpu=gpu_config(4, mode="ppcie")), time.time)
    # A platform of an older version has no other vendors.
    with pytest.raises(ConfigError, match="neither AMD nor NVIDIA"):
        make_machine(dataclasses.replace(config, gpu=gpu_config(1)), time.time)
    with pytest.raises(ConfigError, match="neither AMD nor NVIDIA"):
        make_machine(snp(config), time.time)


def test_gpus_that_the_rules_of_the_node_refuse(full: EnclaveConfig) -> None:
    strict = GpuConfig(count=1, rules=GpuPolicy(gpu_count=1, minimum_driver={"GH100": "999.0"}))
    machine = make_machine(dataclasses.replace(full, gpu=strict), time.time)
    with pytest.raises(EvidenceRejectedError, match=r"gpu\.driver"):
        machine.pass_gate()


def test_platform_with_vendors_is_kept(vendor_dir: Path, tmp_path: Path) -> None:
    first = DevPlatform.load(vendor_dir)
    assert first.vendors is not None
    first.save(tmp_path / "copy")
    again = DevPlatform.load(tmp_path / "copy")
    assert again.vendors is not None
    assert again.vendors.to_dict() == first.vendors.to_dict()
    assert again.vendors.roots == first.vendors.roots
    assert "PRIVATE" not in repr(again)
    assert again.vendors.device_seed.hex() not in repr(again) + repr(again.vendors)
    other = again.sibling(int(time.time()), secrets.token_bytes)
    assert other.vendors is not None
    assert other.vendors.roots == first.vendors.roots
    assert other.vendors.chip.chip_id != first.vendors.chip.chip_id
    assert other.vendors.device_seed != first.vendors.device_seed


@pytest.mark.parametrize("damage", ['"made_at": "x"', '"nvidia_seed": "00"', '"vendors": []'])
def test_damaged_vendors_are_refused(vendor_dir: Path, tmp_path: Path, damage: str) -> None:
    import json
    import re

    document = json.loads((vendor_dir / "platform.json").read_text())
    text = json.dumps(document)
    key = damage.split(":")[0]
    changed = (
        json.dumps({**document, "vendors": []})
        if "[]" in damage
        else re.sub(rf"{key}: [^,]*,", damage + ",", text, count=1)
    )
    assert changed != text
    (tmp_path / "platform.json").write_text(changed)
    with pytest.raises(ConfigError, match="not a simulated platform"):
        DevPlatform.load(tmp_path)


@pytest.mark.parametrize("fault", ["no TEE", "GPU refused"])
async def test_no_model_is_loaded_before_the_gate(full: EnclaveConfig, tmp_path: Path, fault: str) -> None:
    """The files of the model are not even looked at, and nothing listens."""
    refused = GpuConfig(count=1, rules=GpuPolicy(gpu_count=1, minimum_driver={"GH100": "999.0"}))
    config = (
        hardware(full, "tdx", collateral=tmp_path / "c")
        if fault == "no TEE"
        else dataclasses.replace(full, gpu=refused)
    )
    config = dataclasses.replace(
        config, models=(dataclasses.replace(config.models[0], path=tmp_path / "absent"),)
    )

    def factory(*_: object) -> Any:
        raise AssertionError("an engine was made")

    enclave = Enclave(config, engine_factory=factory)
    with pytest.raises((UnsupportedError, EvidenceRejectedError)) as caught:
        await enclave.start()
    assert (caught.value.exit_code == 20) == (fault == "no TEE")
    assert not config.state.exists()
