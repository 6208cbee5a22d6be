"""Fetches and keeps what vendors say about their hardware: Intel collateral, AMD certificates, NVIDIA manifests.

Nothing here decides about trust. Every endorsement is checked when it enters the cache, so that a bad one
never replaces a good one, and again by `cocoon_attestation`, which alone decides. See
docs/spec/endorsements.md.
"""
