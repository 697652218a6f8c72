"""Finding a cluster's networks and names out from its API: in the manager, and with the user's own rights."""
