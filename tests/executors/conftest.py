"""Lets workers, which are processes of their own, import the tasks by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
