"""Generated files and their paths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from marketfeed_monitoring import grafana, rules
from marketfeed_monitoring.boards import BOARDS

DASHBOARDS: Final = "dashboards"
RULES: Final = "rules"


def files() -> Mapping[str, str]:
    """Return the text of every generated file by its path below the chart's `files/`."""
    made = {f"{DASHBOARDS}/{board.file_name}": grafana.render(board) for board in BOARDS}
    return {**made, f"{RULES}/{rules.FILE_NAME}": rules.render()}


def outdated(folder: Path) -> list[Path]:
    """Return the files in `folder` that are missing, outdated or no longer generated."""
    made = {folder / name: text for name, text in files().items()}
    wrong = [file for file, text in made.items() if not file.exists() or file.read_text() != text]
    obsolete = [
        file for name in (DASHBOARDS, RULES) for file in (folder / name).glob("*") if file not in made
    ]
    return sorted([*wrong, *obsolete])


def write(folder: Path) -> None:
    """Write all generated files to `folder` and delete those that are no longer generated."""
    for file in outdated(folder):
        file.unlink(missing_ok=True)
    for name, text in files().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(text)
