"""``python -m qcsurrogate``."""

import sys

from qcsurrogate.cli import main

sys.exit(main())
