"""The traffic manager's gRPC service: manager.proto, and what `make proto` generates from it."""
