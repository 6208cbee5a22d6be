"""NVIDIA GPU and NVLink switch evidence: report parser, chains, revocation, manifests and policy."""
