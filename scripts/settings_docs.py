#!/usr/bin/env python3
"""docs/settings.md and .env.example, written from the services' settings classes.

A new variable is a field of a settings class; this script puts it where users look. ``--check`` (what the tests
call) fails when the committed files say something else than the classes.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from marketfeed_chassis.settings import Settings, describe, is_secret
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_operator.settings import OperatorSettings
from marketfeed_workers.settings import WorkerSettings

ROOT: Final = Path(__file__).parents[1]

SERVICES: Final[dict[str, type[Settings]]] = {
    "marketfeed-worker": WorkerSettings,
    "marketfeed-consumer": ConsumerSettings,
    "marketfeed-operator": OperatorSettings,
}

EXAMPLES: Final = {
    "BINANCE_SYMBOLS": "BTCUSDT,ETHUSDT",
    "DATABASE_URL": "postgresql://marketfeed:change-me@localhost:5432/marketfeed",
}
"""A value for each variable that a user must set, for .env.example."""

GENERATED: Final = (
    "Written by scripts/settings_docs.py from the settings classes; edit those, then run it with --write."
)


class Variable(NamedTuple):
    """One environment variable as a user meets it."""

    name: str
    default: str
    text: str
    bounds: str
    secret: bool


def variables_by_services() -> dict[tuple[str, ...], list[Variable]]:
    """The commands that take a variable with the same default -> those variables, in the order declared."""
    takers: dict[tuple[str, str], list[str]] = defaultdict(list)
    variables: dict[tuple[str, str], Variable] = {}
    for command, settings in SERVICES.items():
        for name, default, text in describe(settings):
            field = settings.model_fields[name.lower()]
            takers[name, default].append(command)
            variables.setdefault(
                (name, default), Variable(name, default, text, _bounds(field), secret=is_secret(field))
            )
    groups: dict[tuple[str, ...], list[Variable]] = defaultdict(list)
    for key, commands in sorted(takers.items(), key=lambda item: -len(item[1])):
        groups[tuple(commands)].append(variables[key])
    return dict(groups)


def _bounds(field: FieldInfo) -> str:
    words = {Gt: "more than", Ge: "at least", Lt: "less than", Le: "at most"}
    said = []
    for rule in field.metadata:
        for kind, word in words.items():
            if isinstance(rule, kind):
                said.append(f"{word} {getattr(rule, kind.__name__.lower())}")
    return ", ".join(said)


PROXIES_AND_CERTIFICATES: Final = (
    "## Proxies and certificates",
    "The worker connects to the venue directly, over the WebSocket and over REST: `HTTP_PROXY`, `HTTPS_PROXY` and "
    "`NO_PROXY` are not read. Where only a proxy may reach the venue, let it forward the addresses themselves (TCP, or "
    "a reverse proxy) and name it in `BINANCE_WS_BASE` and `BINANCE_REST_BASE`. Redirects are not followed.",
    "The venue's certificate is verified against the system's CAs. For another CA (a proxy that ends TLS) set "
    "`SSL_CERT_FILE` to a PEM file, or `SSL_CERT_DIR` to a folder of them, as OpenSSL reads them; both replace the "
    "system's, so the file must hold every CA that is needed. Kafka has `KAFKA_SSL_CA_LOCATION`, the database "
    "`sslrootcert` in its URL; neither reads these two.",
)


def settings_md() -> str:
    """The text of docs/settings.md."""
    parts = [
        "# Settings",
        "Every service reads its settings from environment variables, once, at its start. White space around a value "
        "is dropped, and an empty variable counts as one that is not set. A value that cannot be used ends the service "
        "with exit code 2 and one line that names variable, value and what is allowed, before anything is opened. "
        "Secrets are masked in every log, error and `--help`. `.env.example` holds the same variables as a file.",
        f"<!-- {GENERATED} -->",
    ]
    for commands, variables in variables_by_services().items():
        parts.append(f"## {' and '.join(f'`{command}`' for command in commands)}")
        rows = ["| variable | default | meaning | bounds |", "|---|---|---|---|"]
        rows += [
            f"| `{v.name}` | {_shown(v.default)} | {_cell(v.text)}{' (secret)' if v.secret else ''} | {v.bounds} |"
            for v in variables
        ]
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, *PROXIES_AND_CERTIFICATES]) + "\n"


def env_example() -> str:
    """The text of .env.example."""
    parts = [
        "# The environment of marketfeed's services: copy to .env and change what you need. What has a default stands\n"
        "# commented out with it. docs/settings.md is the same as tables.\n"
        f"# {GENERATED}"
    ]
    for commands, variables in variables_by_services().items():
        parts.append(f"# ---- {' and '.join(commands)} ----")
        for variable in variables:
            bounds = f" ({variable.bounds})" if variable.bounds else ""
            value = (
                f"{variable.name}={EXAMPLES[variable.name]}"
                if variable.name in EXAMPLES
                else f"#{variable.name}={variable.default}"
            )
            parts.append(f"# {variable.text}{bounds}\n{value}")
    return "\n\n".join(parts) + "\n"


def _shown(default: str) -> str:
    return "required" if default == "(required)" else f"`{default}`" if default else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def outdated(root: Path) -> dict[Path, str]:
    """The files that differ from what the classes say -> what they should hold."""
    wanted = {root / "docs/settings.md": settings_md(), root / ".env.example": env_example()}
    return {file: text for file, text in wanted.items() if not file.exists() or file.read_text() != text}


def main() -> int:
    """Write the files, or with ``--check`` say which are outdated and answer 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--check", action="store_true", help="fail when a file is outdated")
    choice.add_argument("--write", action="store_true", help="write the files")
    write: bool = parser.parse_args().write
    found = outdated(ROOT)
    for file, text in found.items():
        if write:
            file.write_text(text)
        print(
            f"{file.relative_to(ROOT)}: {'written' if write else 'outdated; run scripts/settings_docs.py --write'}"
        )
    return 1 if found and not write else 0


if __name__ == "__main__":
    sys.exit(main())
