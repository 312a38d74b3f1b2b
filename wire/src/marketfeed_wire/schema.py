"""JSON Schemas of the messages, for readers in other languages.

``python -m marketfeed_wire.schema FOLDER`` writes them; ``make generate`` does so for this repository.
"""

import argparse
import inspect
import json
from pathlib import Path
from typing import Final

import msgspec

from marketfeed_wire.messages import SCHEMA_VERSION, BookTicker, Trade

_MESSAGES: Final[dict[str, type[msgspec.Struct]]] = {"trade": Trade, "book_ticker": BookTicker}


def schemas() -> dict[str, str]:
    """Return file name -> JSON Schema text for each message type at this schema version."""
    return {
        f"{name}.v{SCHEMA_VERSION}.schema.json": json.dumps(_schema(message), indent=2) + "\n"
        for name, message in _MESSAGES.items()
    }


def _schema(message: type[msgspec.Struct]) -> dict[str, object]:
    (reference,), definitions = msgspec.json.schema_components([message])
    # msgspec returns a reference into `definitions`; a schema file of one message holds the definition itself.
    definition = definitions[reference["$ref"].rsplit("/", 1)[-1]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": message.__name__,
        **definition,
        # Python 3.13 removes a docstring's indentation when it compiles a class, older ones keep it.
        "description": inspect.cleandoc(definition["description"]),
    }


def main() -> None:
    """Write the schemas into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
