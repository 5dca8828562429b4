"""``python -m qcsurrogate.cli``."""

from __future__ import annotations

import sys

from qcsurrogate.cli import main

sys.exit(main())
