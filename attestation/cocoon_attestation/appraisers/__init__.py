"""The parts of an appraisal: TDX, SEV-SNP, GPUs. `cocoon_attestation.appraisal` composes them."""
