"""What an administrator does with a cluster from outside: install the traffic manager, check rights. No data plane."""
