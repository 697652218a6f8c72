"""The traffic manager: the cluster's end of the tunnel, an ordinary unprivileged process in a pod.

It listens on its pod's loopback only: gRPC for control (:mod:`.service`) and a port for carriers
(:mod:`.mux_server`), on which it dials what the near side asks for (:mod:`.dialer`) and copies bytes
(:mod:`.tcp_flow`, :mod:`.udp_flow`). Its thousands of sockets are watched by :mod:`.poller`, and what they make it
hold is bounded by :mod:`.backlog`. What it finds out about the cluster is :mod:`.discovery`.
"""
