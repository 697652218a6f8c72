"""``python -m telehelper.manager``."""

import sys

from telehelper.manager.main import main

sys.exit(main())
