"""What is generated and where it goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from marketfeed_monitoring import grafana, rules
from marketfeed_monitoring.boards import BOARDS

DASHBOARDS: Final = "dashboards"
RULES: Final = "rules"


def files() -> Mapping[str, str]:
    """Path below the chart's `files/` -> text."""
    made = {f"{DASHBOARDS}/{board.file_name}": grafana.render(board) for board in BOARDS}
    return {**made, f"{RULES}/{rules.FILE_NAME}": rules.render()}


def outdated(folder: Path) -> list[Path]:
    """The files in `folder` that are missing, that say something else, or that nothing makes any more."""
    made = {folder / name: text for name, text in files().items()}
    wrong = [file for file, text in made.items() if not file.exists() or file.read_text() != text]
    left = [file for name in (DASHBOARDS, RULES) for file in (folder / name).glob("*") if file not in made]
    return sorted([*wrong, *left])


def write(folder: Path) -> None:
    """Bring `folder` up to date; what nothing makes any more is deleted."""
    for file in outdated(folder):
        file.unlink(missing_ok=True)
    for name, text in files().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(text)
