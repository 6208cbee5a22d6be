"""The attester side: what produces the evidence that `cocoon_attestation` checks."""
