"""The root part of telemagic: it makes the TUN, sets addresses, routes and the resolver, and takes them back.

Standard library, pyroute2 and telehelper's `codec`, `messages` and `errors` only: this is all of ours that runs as
root, so it is kept short enough to be read. Start with :mod:`telehelper.netd.main`.
"""
