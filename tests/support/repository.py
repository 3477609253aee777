# SPDX-License-Identifier: Apache-2.0
"""The repository as tests of the house look at it: its settings, its members, its modules."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
MEMBERS: list[str] = SETTINGS["uv"]["workspace"]["members"]


def modules_of(folder: str) -> list[Path]:
    """All Python modules below a folder that git knows or would take."""
    listing = ["git", "ls-files", "-co", "--exclude-standard", f"{folder}*.py"]
    found = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [path for path in map(REPOSITORY.joinpath, found.split()) if path.exists()]
