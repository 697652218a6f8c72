"""The edge to the Kubernetes API: kubeconfig in, plain JSON and byte streams out.

All of it is ours: the official client runs login plugins without a time limit while it reads a kubeconfig, changed its data
classes incompatibly in version 37, and its port-forward blocks.
"""
