"""Rules of the checks on vendor evidence: AMD SEV-SNP, NVIDIA GPUs, boot event logs.

The texts are those of docs/spec/snp.md, gpu.md and eventlog.md; a test compares them word for word.
"""

from __future__ import annotations

from typing import Final

VENDOR_RULES: Final = (
    (
        "snp.length",
        "Recorded once the report has parsed: 1184 bytes, known version, reserved fields zero.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.algorithm",
        "Signature algorithm is 1 (ECDSA P-384 with SHA-384).",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.chain",
        "leaf ← ASK (VCEK) or ASVK (VLEK) ← a root of the policy. Issuer names equal; the intermediate is a "
        "CA that may sign certificates; both signatures are RSA-PSS, SHA-384, MGF1-SHA-384, 48 bytes of salt."
        " A root in the evidence is ignored. The product is the one of the root.",
        "AMD publication 57230 (VCEK and KDS); RFC 5280 and RFC 8017",
    ),
    (
        "snp.dates",
        "Leaf, intermediate and root are valid at `at`.",
        "RFC 5280 and RFC 8017",
    ),
    (
        "snp.crl",
        "The list is issued and signed (RSA-PSS as above) by the root, has no critical extension, is current "
        "at `at`, and names neither intermediate nor leaf. Without a list: fails if the policy requires one "
        "(default), else skipped. A list that is present is always honoured.",
        "RFC 5280 and RFC 8017; AMD publication 57230 (VCEK and KDS)",
    ),
    (
        "snp.key_kind",
        "Signing key of the report (key information bits 4:2) is 0 with a VCEK, 1 with a VLEK.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.tcb_layout",
        "Reserved bytes of the four TCB versions are zero in the layout of the product.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.tcb_match",
        "Every part of the reported TCB equals the certificate's; FMC is there on Turin and only there.",
        "AMD publication 57230 (VCEK and KDS)",
    ),
    (
        "snp.hwid",
        "VCEK: chip id of the report = certificate (64 bytes; Turin 8 bytes and zeros). A chip id of zeros "
        "needs the MASK_CHIP_KEY bit and the policy. VLEK: the certificate names no chip.",
        "AMD publication 57230 (VCEK and KDS); AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.csp",
        "VLEK only: the provider named in the certificate is on the policy's list (default: empty).",
        "VCEK (VLEK)",
    ),
    (
        "snp.sig",
        "The signature verifies with the leaf's key.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.product",
        "The product is allowed. Default: Genoa and Turin. Milan is off: extraction of its root seed is "
        "reported, after which its reports prove nothing; name it to allow it.",
        "Cocoon policy",
    ),
    (
        "snp.cpuid",
        "From version 3 on, CPUID names the same product: 19/00–0f Milan, 19/10–1f and 19/a0–af Genoa, "
        "1a/00–1f Turin.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.debug",
        "Guest policy bit 19 (DEBUG) is 0. Not negotiable.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.migration",
        "Guest policy bit 18 (MIGRATE_MA) is 0 and the migration agent's report id is all 0xff. Not "
        "negotiable.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.policy",
        "Guest policy has the required bits, none of the forbidden ones, and at least the minimum ABI "
        "version.",
        "AMD publication 56860 (SNP firmware ABI); Cocoon policy",
    ),
    (
        "snp.tcb_order",
        "current ≥ committed ≥ reported, part by part.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.tcb_min",
        "Reported, committed and launch TCB are not below the minimum of the product. A product without a "
        "minimum fails.",
        "Cocoon policy; security bulletins on microcode signing",
    ),
    (
        "snp.platform",
        "Platform information has the required flags of the product (default: ECC, alias check complete), "
        "none of the forbidden ones, and none above bit 7.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.chip",
        "Made if the policy lists chips: the chip id is allowed and not denied.",
        "Cocoon policy",
    ),
    (
        "snp.vmpl",
        "VMPL is allowed (default: 0) and not 0xffffffff, which is a report that the host asked for.",
        "AMD publication 56860 (SNP firmware ABI)",
    ),
    (
        "snp.paravisor",
        "The report lacks the mark of a guest under Azure's paravisor: family id 1, image id 2 and a report data of "
        "32 bytes and zeros. There a virtual TPM speaks for the guest.",
        "policy; Azure confidential VM guest attestation",
    ),
    (
        "snp.measurement",
        "The launch digest is allowed.",
        "Cocoon policy",
    ),
    (
        "snp.host_data",
        "Equals the expected 32 bytes (default: zeros).",
        "Cocoon policy",
    ),
    (
        "snp.id_block",
        "Guest SVN is not below the minimum; family id, image id, ID key digest and author key digest equal "
        "the expected ones where the policy names them.",
        "AMD publication 56860 (SNP firmware ABI); Cocoon policy",
    ),
    (
        "snp.report_data",
        "Equals the expected 64 bytes.",
        "Cocoon policy",
    ),
    (
        "gpu.chain",
        "Ends at a root of the policy. Each certificate is issued by the next: names equal, ECDSA P-384 with "
        "SHA-384, the issuer is a CA that may sign certificates and whose path length allows it. The signing "
        "certificate is no CA.",
        "NVIDIA's published verifier; RFC 5280",
    ),
    (
        "gpu.dates",
        "All certificates are valid at `at`. (They end in the year 9999: only revocation retires a device.)",
        "RFC 5280",
    ),
    (
        "gpu.kind",
        "The chip named by the device certificate is of the declared kind and allowed. Signing and device "
        "certificate name one chip, else the chain is malformed.",
        "genuine evidence",
    ),
    (
        "gpu.serial",
        "Made if the policy lists devices: the serial number of the device certificate is allowed and not "
        "denied.",
        "Cocoon policy",
    ),
    (
        "gpu.fwid",
        "The FWID in the report equals the first one in the signing certificate (2.23.133.5.4.1 on Hopper, "
        "2.23.133.5.4.1.1 on Blackwell). A GPU report without one fails unless the policy makes the exception"
        " for early firmware. Switch firmware reports none.",
        "TCG DICE attestation architecture; NVIDIA's published verifier",
    ),
    (
        "gpu.ocsp",
        "Device, provisioner and family certificate are each cleared as in section 4.",
        "RFC 6960 and RFC 8954",
    ),
    (
        "gpu.sig",
        "The signature verifies with the signing certificate's key.",
        "DMTF DSP0274",
    ),
    (
        "gpu.nonce",
        "The nonce of the request equals the expected one. The nonce of the response proves nothing.",
        "DMTF DSP0274",
    ),
    (
        "gpu.driver",
        "GPU: driver version, decimal parts in order, not below the minimum of the chip. A chip without one "
        "fails.",
        "Cocoon policy",
    ),
    (
        "gpu.vbios",
        "GPU: VBIOS version, hex bytes in order, not below the minimum of the board project; a project "
        "without one fails. Switch: BIOS not below the minimum.",
        "Cocoon policy",
    ),
    (
        "gpu.feature",
        "GPU: version of the opaque records known, feature flag known and allowed, and flag and protected "
        "PCIe status agree.",
        "NVIDIA's published verifier",
    ),
    (
        "gpu.rim_chain",
        "The certificates in the document form a chain (rules of `gpu.chain`) to a manifest root of the "
        "policy, all valid at `at`.",
        "TCG reference integrity manifests; NVIDIA's published verifier",
    ),
    (
        "gpu.rim_sig",
        "One enveloped signature with one reference over the whole document, ECDSA-SHA384 and SHA-384, made "
        "with the first certificate's key.",
        "W3C XML Signature 1.1",
    ),
    (
        "gpu.rim_ocsp",
        "All certificates of the signers below the root are cleared as in section 4.",
        "RFC 6960 and RFC 8954",
    ),
    (
        "gpu.rim_version",
        "Exactly one manifest for each version that the report signed (GPU: driver and VBIOS; switch: BIOS), "
        "compared without case, and all named after this chip.",
        "NVIDIA's published verifier",
    ),
    (
        "gpu.rim_conflict",
        "No index is active in two manifests.",
        "NVIDIA's published verifier",
    ),
    (
        "gpu.rim_match",
        "Every manifest has an active entry; for each active index i, block i + 1 exists and equals one of "
        "the alternatives. Index 35 may differ while the report says that NVDEC0 is off.",
        "NVIDIA's published verifier",
    ),
    (
        "gpu.count",
        "As many GPUs as the policy says.",
        "Cocoon policy",
    ),
    (
        "gpu.distinct",
        "There is a device, and all serial numbers differ.",
        "genuine evidence",
    ),
    (
        "gpu.mode",
        "All GPUs are in one mode.",
        "NVIDIA's published verifier",
    ),
    (
        "gpu.topology",
        "Made if a GPU is in protected PCIe mode or a switch is there: 8 GPUs and 4 switches with one nonce; "
        "the ids behind each GPU's 18 links (reversed, zeros ignored) are exactly the 4 switches; each switch"
        " lists exactly the 8 GPUs. A device's id is the last 8 bytes of its serial number, so the lists are "
        "tied to the chains that signed.",
        "NVIDIA's published verifier; genuine evidence",
    ),
    (
        "eventlog.rtmr0",
        "The replayed register equals the quote's. Skipped without a quote.",
        "UEFI 2.10, section 38",
    ),
    (
        "eventlog.rtmr1",
        "The same.",
        "UEFI 2.10, section 38",
    ),
    (
        "eventlog.rtmr2",
        "The same.",
        "UEFI 2.10, section 38",
    ),
    (
        "eventlog.rtmr3",
        "The same.",
        "UEFI 2.10, section 38",
    ),
    (
        "eventlog.types",
        "Types of events in RTMR0 to RTMR2 are ones of the profile.",
        "TCG PC Client Platform Firmware Profile",
    ),
    (
        "eventlog.preimage",
        "Separators, secure boot variables and authorities, partition tables and EFI actions: if data are "
        "given, their SHA-384 is the digest.",
        "TCG PC Client Platform Firmware Profile",
    ),
    (
        "eventlog.separators",
        "The digest SHA-384(00000000) occurs as in one of the policy's layouts: once in RTMR0 and once in "
        "RTMR1 (current firmware), or twice in RTMR0 and never in RTMR1 (early OVMF builds); never in RTMR2. "
        "No event called separator has another digest (error separator).",
        "TCG PC Client Platform Firmware Profile; UEFI 2.10, section 38",
    ),
    (
        "eventlog.preboot",
        "No secure boot variable after the first separator of RTMR0.",
        "TCG PC Client Platform Firmware Profile",
    ),
    (
        "eventlog.exit_boot",
        'RTMR1 ends with "Exit Boot Services Invocation" and "Exit Boot Services Returned with Success", '
        "known by digest, each there once. Made if the policy looks at RTMR1.",
        "TCG PC Client Platform Firmware Profile",
    ),
    (
        "eventlog.ready",
        "dstack: `system-ready` is there once. Events after it were named by the application: `app_events`, "
        "never policy input.",
        "dstack's published sources",
    ),
    (
        "eventlog.unique",
        "dstack: no name twice up to `system-ready`.",
        "dstack's published sources",
    ),
)
"""Id, rule, source."""
