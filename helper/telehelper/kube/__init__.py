"""The edge to the Kubernetes API: kubeconfig in, plain JSON and byte streams out.

The official client is used only to read a kubeconfig and to keep its credentials fresh (exec plugins, expiring
tokens). Requests are ours: its data classes changed incompatibly in version 37, and its port-forward blocks.
"""
