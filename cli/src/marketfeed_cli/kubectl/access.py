"""The cluster by way of kubectl itself: its contexts, credentials and namespaces are then ours too."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from marketfeed_chassis.errors import StartupError
from marketfeed_cli.terminal import shown_lines
from marketfeed_operator import nesting

PROGRAM = "kubectl"


class Kubectl:
    """Runs kubectl with the options that choose cluster and namespace.

    Args:
        options: for example ``["--context", "production", "--namespace", "market"]``.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._options = list(options)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that ``kubectl get`` finds.

        Raises:
            StartupError: kubectl is not there, or says why not.
        """
        answer = nesting.loads(self._run(["get", *arguments, "--output", "json"]))
        items: list[dict[str, Any]] = answer.get("items", [answer])
        return items

    def check(self, body: dict[str, Any]) -> str:
        """What the API server would refuse of an object, "" when it would take it. Nothing is stored."""
        try:
            self._run(
                ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename", "-"],
                given=json.dumps(body),
            )
        except StartupError as refusal:
            return str(refusal)
        return ""

    def served(self) -> frozenset[str]:
        """Every group and version of kinds that the cluster serves, as in an object's apiVersion."""
        groups = json.loads(self._run(["get", "--raw", "/apis"]))["groups"]
        return frozenset(version["groupVersion"] for group in groups for version in group["versions"])

    def namespace(self) -> str:
        """The namespace that commands without one go to."""
        found = self._run(["config", "view", "--minify", "--output", "jsonpath={..namespace}"])
        return found.strip() or "default"

    def _run(self, arguments: list[str], given: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the words are ours or the user's own to kubectl
                [PROGRAM, *self._options, *arguments],
                input=given, capture_output=True, text=True, check=False, env=os.environ,
            )  # fmt: skip
        except FileNotFoundError:
            raise StartupError(
                "kubectl is not in PATH: kubectl-marketfeed asks the cluster by way of it"
            ) from None
        if done.returncode:
            raise StartupError(
                shown_lines(done.stderr.strip().removeprefix("error: "))
                or f"kubectl ended with {done.returncode}"
            )
        return done.stdout
