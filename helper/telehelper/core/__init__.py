"""The protocol logic: bytes, events and `now` in, actions out. No I/O, no clock, no randomness (see ruff.toml)."""
