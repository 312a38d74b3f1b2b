"""Access to the cluster through kubectl, with its contexts, credentials and namespaces."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from marketfeed_cli.terminal import shown_lines
from marketfeed_operator import nesting
from marketfeed_service.errors import StartupError

PROGRAM = "kubectl"


class Kubectl:
    """Runs kubectl with options for cluster and namespace.

    Args:
        options: For example ``["--context", "production", "--namespace", "market"]``.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._options = list(options)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of ``kubectl get``.

        Raises:
            StartupError: kubectl is not installed or failed.
        """
        body = nesting.loads(self._run(["get", *arguments, "--output", "json"]))
        items: list[dict[str, Any]] = body.get("items", [body])
        return items

    def check(self, body: dict[str, Any]) -> str:
        """Return the error of a server-side dry run of an object; "" if it would be accepted."""
        try:
            self._run(
                ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "--filename", "-"],
                stdin=json.dumps(body),
            )
        except StartupError as error:
            return str(error)
        return ""

    def served(self) -> frozenset[str]:
        """Return every API group and version that the cluster serves, as in an object's apiVersion."""
        groups = json.loads(self._run(["get", "--raw", "/apis"]))["groups"]
        return frozenset(version["groupVersion"] for group in groups for version in group["versions"])

    def namespace(self) -> str:
        """Return the default namespace of the context."""
        found = self._run(["config", "view", "--minify", "--output", "jsonpath={..namespace}"])
        return found.strip() or "default"

    def _run(self, arguments: list[str], stdin: str | None = None) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - no shell; arguments are fixed or the user's
                [PROGRAM, *self._options, *arguments],
                input=stdin, capture_output=True, text=True, check=False, env=os.environ,
            )  # fmt: skip
        except FileNotFoundError:
            raise StartupError(
                "kubectl is not in PATH; kubectl-marketfeed needs it to access the cluster"
            ) from None
        if done.returncode:
            raise StartupError(
                shown_lines(done.stderr.strip().removeprefix("error: "))
                or f"kubectl exited with code {done.returncode}"
            )
        return done.stdout
