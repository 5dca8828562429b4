"""``python -m qcsurrogate``: the command line."""

from __future__ import annotations

import sys

from qcsurrogate.cli import main

sys.exit(main())
