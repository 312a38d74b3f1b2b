"""Command ``kubectl-marketfeed``, which kubectl runs as ``kubectl marketfeed``."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from rich.console import Console

from marketfeed_cli.kubectl import tables
from marketfeed_cli.kubectl.access import Kubectl
from marketfeed_cli.kubectl.preview import as_json, preview
from marketfeed_cli.terminal import shown
from marketfeed_operator.api import Spec, parse
from marketfeed_operator.assign import ShardAssignment
from marketfeed_operator.desired import stored_assignment
from marketfeed_operator.engine.listings import REST_BASES, listed
from marketfeed_operator.kinds import OPTIONAL
from marketfeed_operator.names import FEED, KIND, SHARD, shard_of
from marketfeed_operator.observed import Listing, Observed
from marketfeed_operator.plan import resolve
from marketfeed_service.errors import SettingsError, StartupError
from marketfeed_service.process import exit_code_of


def main() -> None:
    """Run the command line and exit."""
    sys.exit(exit_code_of(lambda: run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit code.

    Raises:
        SettingsError: The file does not contain a valid MarketFeed.
        StartupError: The cluster or the venue did not respond, or the API server rejected the object.
    """
    options = parser().parse_args(arguments)
    # Lines are wrapped on a terminal only.
    console = Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False)
    return _status(options, console) if options.command == "status" else _plan(options, console)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-n", "--namespace", help="namespace of the feed [namespace of the context]")
    common.add_argument("--context", help="context of the kubeconfig [current context]")
    common.add_argument("--kubeconfig", help="kubeconfig file [kubectl's default]")
    common.add_argument("-o", "--output", choices=["table", "json"], default="table", help="table or json")
    top = argparse.ArgumentParser(
        prog="kubectl marketfeed",
        description="Show the status of feeds, or preview a change. Read-only.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", parents=[common], help="show the status of feeds")
    status.add_argument("name", nargs="?", help="a single feed, with its shards and conditions [all feeds]")
    status.add_argument("-A", "--all-namespaces", action="store_true", help="feeds of all namespaces")
    plan = commands.add_parser(
        "plan", parents=[common], help="preview the changes of a file, including moved symbols"
    )
    plan.add_argument(
        "-f", "--filename", required=True, help="file with one MarketFeed, or - for standard input"
    )
    return top


def _kubectl(options: argparse.Namespace) -> Kubectl:
    given = [(f"--{name}", getattr(options, name)) for name in ("context", "kubeconfig", "namespace")]
    return Kubectl([word for name, value in given if value for word in (name, value)])


def _status(options: argparse.Namespace, console: Console) -> int:
    if options.name and options.all_namespaces:
        raise SettingsError("NAME and --all-namespaces cannot be combined")
    selection = [options.name] if options.name else (["--all-namespaces"] if options.all_namespaces else [])
    feeds = _kubectl(options).get("marketfeeds.marketfeed.dev", *selection)
    if options.output == "json":
        entries = [{**_identity(feed), **feed.get("status", {})} for feed in feeds]
        print(json.dumps(entries[0] if options.name else entries, indent=2))
    elif not feeds:
        console.print("no MarketFeed found in this namespace; use --all-namespaces to list all")
    else:
        tables.status(console, shown(feeds), datetime.now(UTC))
    return 0


def _identity(feed: dict[str, Any]) -> dict[str, str]:
    return {key: feed["metadata"][key] for key in ("namespace", "name")}


def _plan(options: argparse.Namespace, console: Console) -> int:
    body = _read(options.filename)
    kubectl = _kubectl(options)
    name = body["metadata"]["name"]
    namespace = options.namespace or body["metadata"].get("namespace") or kubectl.namespace()
    body["metadata"]["namespace"] = namespace
    then = parse(body.get("spec") or {})
    if not isinstance(then, Spec):
        raise SettingsError("\n".join(then))
    if refusal := kubectl.check(body):
        raise StartupError(f"the API server would reject it: {refusal}")
    stored = [
        feed
        for feed in kubectl.get("marketfeeds.marketfeed.dev", "--namespace", namespace)
        if feed["metadata"]["name"] == name
    ]
    before = parse(stored[0]["spec"]) if stored else None
    files = kubectl.get("configmaps", "--namespace", namespace, "--selector", f"{FEED}={name},{SHARD}")
    now = {
        shard: stored_assignment(file["data"])
        for file in files
        if (shard := shard_of(file["metadata"]["name"])) is not None
    }
    served = kubectl.served()
    found = preview(
        name,
        now,
        before if isinstance(before, Spec) else None,
        then,
        _symbols(then, now),
        {kind.kind for kind in OPTIONAL if kind.api_version in served},
    )
    if options.output == "json":
        print(json.dumps(as_json(found), indent=2))
    else:
        tables.preview(console, shown(found))
    return 0


def _read(filename: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if filename == "-" else Path(filename).read_text()
        body = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{filename} cannot be read: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != KIND or not (body.get("metadata") or {}).get("name"):
        raise SettingsError(f"{filename} does not contain one {KIND} with a name")
    return body


def _symbols(spec: Spec, now: dict[int, ShardAssignment]) -> frozenset[str]:
    """Return the symbols of the feed; a selector is resolved with the venue's symbol list."""
    assigned = frozenset(symbol for reading in now.values() for symbol in reading.owned)
    listing = None
    if spec.symbol_selector is not None:
        base = (spec.endpoints and spec.endpoints.rest) or REST_BASES[spec.venue]
        try:
            listing = Listing(asyncio.run(_fetch_listing(base)))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = shown(f"{error}" or type(error).__name__)
            raise StartupError(f"{base} did not return its symbol list: {reason}") from error
    return frozenset(resolve(spec, Observed(listing=listing), assigned) or ())


async def _fetch_listing(base: str) -> dict[str, tuple[str, str]]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        return (await listed(session, base)).symbols


if __name__ == "__main__":
    main()
