"""NVIDIA's roots, pinned: device identity (GPUs and NVLink switches) and reference manifests (RIM).

See PROVENANCE.md beside this file.
"""

import functools
from typing import Final

from cocoon_attestation.roots.pinned import load_pinned

DEVICE_ROOT_SHA256: Final = "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
"""SHA-256 of the DER form of "NVIDIA Device Identity CA"."""
RIM_ROOT_SHA256: Final = "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"
"""SHA-256 of the DER form of "NVIDIA CoRIM signing Root CA"."""


@functools.cache
def nvidia_device_root() -> bytes:
    """DER form of the root of every production GPU and LS10 switch certificate chain.

    Raises:
        ConfigError: the shipped file is missing or is not the pinned certificate.
    """
    return load_pinned("nvidia", "device_identity_root.der", DEVICE_ROOT_SHA256)


@functools.cache
def nvidia_rim_root() -> bytes:
    """DER form of the root of every production reference manifest signer.

    Raises:
        ConfigError: the shipped file is missing or is not the pinned certificate.
    """
    return load_pinned("nvidia", "rim_root.der", RIM_ROOT_SHA256)
