"""The host agent: everything that needs the host's money or a connection to the chain, outside the TEE.

It is trusted with nothing but the host's own stake and earnings; clients never depend on what it says.
"""
