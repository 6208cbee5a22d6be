"""The configuration file, what of it is measured, and keys that show nothing."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.binding import MAX_LIFETIME_S
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.types import Digest32
from cocoon_enclave.config import EnclaveConfig, EngineConfig, Limits, load_config, parse_config
from cocoon_enclave.keys import Keyring, generate_keyset

NOW = 1_800_000_000.0


def test_file_round_trip(config: EnclaveConfig, tmp_path: Path) -> None:
    file = tmp_path / "enclave.toml"
    file.write_text(config.to_toml())
    assert load_config(file) == config
    assert load_config(file).config_hash == config.config_hash


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ("[limits]", "[limits]\nunknown = 1"),
        ("[node]", "[node]\nunknown = 1"),
        ("[tee]", "[extra]\n[tee]"),
        ("context_length =", "contextlength ="),
        ('kind = "simulated"', 'kind = "none"'),
        ('kind = "simulated"', 'kind = "tdx"'),
        ("global_id = -777", "global_id = 3000000000"),
        ("global_id = -777", 'global_id = "mainnet"'),
        ("prompt = 1000000", "prompt = -1"),
        ("channel_wait_s = 0.3", "channel_wait_s = true"),
        ('release = "', 'release = "00'),
        ("[[models]]", "[models]"),
        ("[limits]", "["),
        ("lifetime_s = 86400", "lifetime_s = 86401"),
    ],
)
def test_bad_files_are_refused(config: EnclaveConfig, tmp_path: Path, find: str, put: str) -> None:
    text = config.to_toml()
    assert find in text
    file = tmp_path / "enclave.toml"
    file.write_text(text.replace(find, put, 1))
    with pytest.raises(ConfigError):
        load_config(file)


def test_contradictions_are_refused(config: EnclaveConfig, tmp_path: Path) -> None:
    text = config.to_toml()
    models = text[text.index("[[models]]") :]
    for changed in (
        text + models,
        text.replace(models, ""),
        text.replace("slots = 16", "slots = 0"),
        text.replace('dtype = "auto"', 'dtype = "int3"'),
        text.replace("lifetime_s = 86400", "lifetime_s = 7200"),
        re.sub("platform = .*", "", text),
    ):
        assert changed != text
        file = tmp_path / "enclave.toml"
        file.write_text(changed)
        with pytest.raises(ConfigError):
            load_config(file)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "absent.toml")


def test_what_is_measured(config: EnclaveConfig) -> None:
    text = json.dumps(config.measured, sort_keys=True, separators=(",", ":"))
    assert config.config_hash == hashlib.sha256(b"cocoon/v1/config" + text.encode()).digest()
    measured: list[dict[str, Any]] = [
        {"node": b"\x01" * 32},
        {"registry": "x"},
        {"global_id": 5},
        {"limits": Limits(requests=1)},
        {"engine": EngineConfig(slots=1)},
        {"models": (dataclasses.replace(config.models[0], digest=Digest32(bytes(32))),)},
        {"models": (dataclasses.replace(config.models[0], context_length=9),)},
        {"key_lifetime_s": 61},
        {"coalesce_ms": 1},
    ]
    hashes = {dataclasses.replace(config, **change).config_hash for change in measured}
    assert len(hashes | {config.config_hash}) == len(measured) + 1
    for change in (
        {"state": Path("/elsewhere")},
        {"models": (dataclasses.replace(config.models[0], path=Path("/x")),)},
    ):
        assert dataclasses.replace(config, **change).config_hash == config.config_hash


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_any_document_is_a_configuration_or_an_error(value: object) -> None:
    document = value if isinstance(value, dict) else {"node": value}
    with pytest.raises(ConfigError):
        parse_config(document, base=Path("/x"))


def test_a_keyset_names_its_keys(config: EnclaveConfig) -> None:
    keyset = generate_keyset(config, NOW)
    binding = keyset.binding
    certificate = x509.load_pem_x509_certificate(keyset.tls_certificate_pem)
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert binding.tls_spki_hash == hashlib.sha256(spki).digest()
    assert binding.seal_key_hash == hashlib.sha256(keyset.seal.public_key).digest()
    assert binding.receipt_key == keyset.receipt.public_key().public_bytes_raw()
    assert (binding.node, binding.config_hash) == (config.node, config.config_hash)
    assert binding.not_before < NOW < binding.not_after
    assert binding.not_after - binding.not_before <= MAX_LIFETIME_S
    assert generate_keyset(config, NOW).binding_hash != keyset.binding_hash


def test_a_keyset_shows_and_gives_away_nothing(config: EnclaveConfig) -> None:
    keyset = generate_keyset(config, NOW)
    assert repr(keyset) == f"Keyset(binding_hash={keyset.binding_hash.hex()})"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(keyset)


def test_keyring(config: EnclaveConfig) -> None:
    config = dataclasses.replace(config, key_lifetime_s=1000)
    first, second = generate_keyset(config, NOW), generate_keyset(config, NOW + 700)
    ring = Keyring(current=first)
    assert not ring.due(NOW + 600, 300)
    assert ring.due(NOW + 700, 300)
    ring.rotate(second)
    assert [key.key_id for key in ring.open_keys(NOW + 800)] == [
        second.seal.key_id,
        first.seal.key_id,
    ]
    assert ring.by_key_id(first.seal.key_id) is first
    assert [key.key_id for key in ring.open_keys(NOW + 1001)] == [second.seal.key_id]
    ring.expire(NOW + 1001)
    assert ring.older == []
