"""Generated protobuf and gRPC stubs of the Cocoon protocol, version 1. Regenerate with `make proto`."""
