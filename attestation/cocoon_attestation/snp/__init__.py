"""AMD SEV-SNP evidence: report parser, endorsement chain, verification and policy."""
