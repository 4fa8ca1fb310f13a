"""Lets tests here import what lies beside them, and what those of the CPU share: a package's folder is on no path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "codegen")]
