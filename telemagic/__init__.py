"""Type `%tele connect` in a notebook, and a cluster answers there by name."""
