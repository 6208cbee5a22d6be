"""The enclave: runs models on sealed requests, meters, signs receipts, and proves what it is.

Start with `cocoon_enclave.runtime.Enclave`; one request's way is `session`, `exchange`, `engine`, `log`.
"""
