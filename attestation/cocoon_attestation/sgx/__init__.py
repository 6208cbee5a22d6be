"""Intel SGX quotes: for completeness of raw quotes. No release of Cocoon runs in SGX."""
