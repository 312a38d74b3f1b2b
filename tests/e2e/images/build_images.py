#!/usr/bin/env python3
"""Build container images from packages alone, for machines that reach package registries but no image registry.

Not needed where images can be pulled. Each image is built once, and again only when its inputs have
changed. Needs root, Docker, debootstrap, Maven for the Kafka images, and the project's .venv (`make setup`).
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import images_debian
from images_recipes import BASE, HERE, RECIPES, Recipe, components
from images_tools import KEY_LABEL, image_key

from marketfeed_devtools import docker
from marketfeed_devtools.cache import locked
from marketfeed_devtools.programs import exit_code, say

COMPONENTS = "components"


def provide(name: str) -> str:
    """Return the reference of a local image; it is built when it is missing or outdated.

    Raises:
        Unavailable: the machine lacks a program for the build.
        CommandFailed: a command of the build failed.
    """
    recipe = RECIPES[name]
    with locked("images"):
        if image_key(recipe.reference) != recipe.key():
            if name != "base" and image_key(BASE) != RECIPES["base"].key():
                _make(RECIPES["base"])
            _make(recipe)
    return recipe.reference


def _make(recipe: Recipe) -> None:
    begun = time.monotonic()
    say(f"{recipe.reference}: building")
    if not recipe.folder:
        images_debian.import_base(recipe.reference, recipe.key())
    else:
        with tempfile.TemporaryDirectory(prefix="marketfeed-image-") as folder:
            context, scratch = Path(folder) / "context", Path(folder) / "scratch"
            shutil.copytree(HERE / recipe.folder, context, ignore=shutil.ignore_patterns("*.xml"))
            scratch.mkdir()
            recipe.fill(context, scratch)
            docker.build(
                recipe.reference, context, labels={KEY_LABEL: recipe.key()}, arguments={"BASE_IMAGE": BASE}
            )
    say(f"{recipe.reference}: built in {time.monotonic() - begun:.0f} s")


def provide_components() -> list[str]:
    """Build the project's own images from this tree on the local base; return their references."""
    provide("base")
    provide("builder")
    return components()


def main() -> int:
    """Return exit code 0 when all exist, 1 when a build failed, 3 when the machine lacks a program."""
    names = [*RECIPES, COMPONENTS]
    listing = "\n".join(
        f"  {name:16} {recipe.reference}" + (f", for {recipe.stands_for}" if recipe.stands_for else "")
        for name, recipe in RECIPES.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"images:\n{listing}\n  {COMPONENTS:16} marketfeed-worker, -consumer, -operator, -simulator",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="images to build [all]")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"no such image: {', '.join(unknown)}; available: {', '.join(names)}")

    def work() -> None:
        for name in options.names or names:
            for reference in provide_components() if name == COMPONENTS else [provide(name)]:
                say(reference)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
