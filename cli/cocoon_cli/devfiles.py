"""Configuration files of a development network's enclave and host agent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cocoon_attestation.reference import AnyRelease
from cocoon_ton.network import NetworkConfig

if TYPE_CHECKING:
    from cocoon_cli.devnetwork import DevSettings
    from cocoon_enclave.models.demo import FetchedModel

PRICES = {"prompt": 1_000_000_000, "cached": 500_000_000, "completion": 4_000_000_000}
"""Nanoton per million tokens on development networks."""
STAKE_TON = "20"


def enclave_toml(
    network: NetworkConfig,
    settings: DevSettings,
    *,
    node: bytes,
    release: AnyRelease,
    model: FetchedModel,
    ports: dict[str, int],
) -> str:
    """``enclave.toml`` of the one enclave."""
    prices = "\n".join(f"{name} = {value}" for name, value in PRICES.items())
    root = settings.root
    return f"""# Written by cocoon; the enclave measures most of it.
state = {_s(root / "enclave")}

[node]
id = "{node.hex()}"
registry = {_s(network.registry)}
global_id = {network.global_id}
release = "{release.to_boc().hex()}"

[tee]
kind = "{"simulated-snp" if settings.tee == "snp" else "simulated"}"
platform = {_s(root / "platform")}
{_gpu(settings)}
[[models]]
name = {_s(model.name)}
digest = "{model.digest.hex()}"
path = {_s(model.path)}

[prices]
{prices}

[server]
public = "127.0.0.1:{ports["public"]}"
host = "127.0.0.1:{ports["host"]}"
health = "127.0.0.1:{ports["health"]}"
"""


def _gpu(settings: DevSettings) -> str:
    if not settings.gpus:
        return ""
    mode = f"mode = {_s(settings.gpu_mode)}\n" if settings.gpu_mode else ""
    return f"\n[gpu]\ncount = {settings.gpus}\n{mode}"


def host_toml(settings: DevSettings, *, endpoint: str, host_service: str, model: bytes) -> str:
    """``host.toml`` of the one host agent."""
    prices = ", ".join(f"{name} = {value}" for name, value in PRICES.items())
    return f"""# Written by cocoon.
network = {_s(settings.root / "network.json")}
state = {_s(settings.root / "host")}
host_service = "{host_service}"
endpoint = "{endpoint}"
models = ["{model.hex()}"]
simulated = true
stake = "{STAKE_TON}"
prices = {{ {prices} }}
poll_s = {settings.poll_s}
anchor_every_s = {settings.anchor_every_s}
settle_above = "{settings.settle_above / 10**9:.9f}"
"""


def _s(value: object) -> str:
    # A JSON string is a TOML basic string for every path that a person would use.
    return json.dumps(str(value))
