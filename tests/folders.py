"""Where the servers of the tests keep their files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cti.embedded.place import scratch_folder

MEMORY = Path("/dev/shm")  # names are made by mkdtemp
ROOM = 2 << 30
"""Bytes that must be free in memory for the servers of the tests to keep their files there."""


def quick_folder(prefix: str) -> Path:
    """As `scratch_folder`, in memory where there is room: making a database is mostly making files."""
    try:
        roomy = os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free > ROOM
    except OSError:
        roomy = False
    return scratch_folder(prefix, MEMORY if roomy else None)
