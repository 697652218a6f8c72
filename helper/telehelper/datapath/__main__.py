"""`python -m telehelper.datapath`: see :mod:`telehelper.datapath.main`."""

import sys

from telehelper.datapath.main import main

sys.exit(main())
