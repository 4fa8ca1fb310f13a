"""Lets tests here import what lies beside them: of a package, pytest puts the folder around it on the path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
