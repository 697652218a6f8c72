"""`telemagic bench`: the tunnel measured beside the bare link and its peers, in namespaces of its own.

::

    the user's process            the place: namespaces of user, network, mounts, processes
    ┌─────────────────┐  JSON   ┌──────────────────────────────────────────────────────────────┐
    │ child.py        │ lines   │ runner.py: client    192.0.2.1 ══ raw ══ 192.0.2.2  catalog  │
    │ progress, table │◄────────│ telemagic.connect()  192.0.2.5 ══ tcp ══ 192.0.2.6  manager  │
    └─────────────────┘         │ load.py              relay, sshd's clients          server.py│
                                └──────────────────────────────────────────────────────────────┘

The far side is a demo cluster; the two veths go from the runner's network into two of its pods. Everything lives in
the place, so it is enough for the runner to end, however it ends, and nothing is left.
"""
