"""What runs outside the notebook's kernel: netd (root), datapath (user) and the traffic manager (in the cluster)."""

__version__ = "0.1.0.dev0"
