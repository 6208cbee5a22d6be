"""Engines: what turns token ids into token ids. See `cocoon_enclave.engine.protocol`."""
