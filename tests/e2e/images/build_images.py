#!/usr/bin/env python3
"""Builds container images out of packages alone, for machines that can reach package registries and no image registry.

Where images can be pulled none of this is needed. Each image is built once: again only when what it is made of has
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

OURS = "components"


def provide(name: str) -> str:
    """The reference of a local image; it is built when it is not there or out of date.

    Raises:
        Unavailable: the machine lacks something that it is built with.
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
    """The references of our own images, built from this tree on the local base."""
    provide("base")
    provide("builder")
    return components()


def main() -> int:
    """Exit code 0 when all are there, 1 when one could not be built, 3 when the machine lacks something."""
    names = [*RECIPES, OURS]
    listing = "\n".join(
        f"  {name:16} {recipe.reference}" + (f", for {recipe.stands_for}" if recipe.stands_for else "")
        for name, recipe in RECIPES.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"images:\n{listing}\n  {OURS:16} marketfeed-worker, -consumer, -operator, -simulator of this tree",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to build [all]")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(names)):
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(names)}")

    def work() -> None:
        for name in options.names or names:
            for reference in provide_components() if name == OURS else [provide(name)]:
                say(reference)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
