"""Models: what they are (manifest, digest), where the demo model comes from, and how GGUF is imported."""

from __future__ import annotations

from cocoon_enclave.models.demo import DEMO_MODEL, FetchedModel, demo_model, fetch_demo
from cocoon_enclave.models.manifest import Manifest, ManifestFile, measure, verified_copy, verify

__all__ = [
    "DEMO_MODEL",
    "FetchedModel",
    "Manifest",
    "ManifestFile",
    "demo_model",
    "fetch_demo",
    "measure",
    "verified_copy",
    "verify",
]
