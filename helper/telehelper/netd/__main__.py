"""``python -I -m telehelper.netd``, with a Unix stream socket as standard input."""

import sys

from telehelper.netd.main import main

if __name__ == "__main__":
    sys.exit(main())
