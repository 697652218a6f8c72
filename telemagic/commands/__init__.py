"""One file, one subcommand: its summary, its arguments, and one function that carries it out."""
