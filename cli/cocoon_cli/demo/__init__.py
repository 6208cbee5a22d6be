"""`cocoon demo`: the whole network on this machine, one prompt from registry to audit, and three attacks."""
