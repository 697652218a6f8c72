"""The data plane: runs as the user, owns the TUN descriptor and the tunnel; a shell round `core`."""
