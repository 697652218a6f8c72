"""The way in without a manager: each TCP flow is a port-forward of its own, names are answered from the API."""
