"""The cluster from a user's side: kubectl and a kubeconfig.

Services inside are reached through the API server (``/proxy/``), which needs no local port and survives the
replacement of the pod behind it.
"""

import contextlib
import json
import re
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

CALL_SECONDS: Final = 60.0


class Failed(Exception):
    """A command failed; the message has the command and its output."""


@dataclass(frozen=True)
class Kube:
    """One cluster.

    Attributes:
        kubectl: the program.
        kubeconfig: of an administrator.
        on_kind: whether the nodes are containers of the local Docker.
    """

    kubectl: Path
    kubeconfig: Path
    on_kind: bool

    def run(self, *arguments: str, text: str | None = None, seconds: float = CALL_SECONDS) -> str:
        """Return the output of kubectl, given `text` on its standard input.

        Raises:
            Failed: it ended with an error, or did not end within `seconds`.
        """
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, text=text, seconds=seconds)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply `objects` as a user does."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(whole))

    def get(self, namespace: str, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them, from the API server."""
        found: dict[str, Any] = json.loads(
            self.run("--namespace", namespace, "get", *arguments, "-o", "json")
        )
        return found

    def find(self, namespace: str, *arguments: str) -> dict[str, Any] | None:
        """Return the same as `get`, or None when it does not exist."""
        output = self.run("--namespace", namespace, "get", *arguments, "--ignore-not-found", "-o", "json")
        return json.loads(output) if output.strip() else None

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods that match `selector`, without terminating ones."""
        found = self.get(namespace, "pods", "--selector", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, namespace: str, target: str, path: str, body: Any = None, *, verb: str = "") -> Any:
        """Return the JSON response of ``pods/NAME:PORT`` or ``services/NAME:PORT`` at `path`; POST with a `body`."""
        address = f"/api/v1/namespaces/{namespace}/{target}/proxy{path}"
        if body is None:
            return json.loads(self.run(verb or "get", "--raw", address))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(body, file)
            file.flush()
            return json.loads(self.run("create", "--raw", address, "-f", file.name))

    def text(self, namespace: str, target: str, path: str) -> str:
        """Return a response as text; otherwise the same as `ask`."""
        return self.run("get", "--raw", f"/api/v1/namespaces/{namespace}/{target}/proxy{path}")

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Forward a free local port to `port` of `target` for the duration of the block."""
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", "--namespace", namespace]
        with subprocess.Popen(
            [*command, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                output = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+) ->", output)
                assert found, f"kubectl port-forward {target} {port} printed {output!r}"
                yield int(found.group(1))
            finally:
                process.terminate()


def run(command: list[str], *, text: str | None = None, seconds: float = CALL_SECONDS) -> str:
    """Return the output of `command`, given `text` on its standard input.

    Raises:
        Failed: it ended with an error, or did not end within `seconds`.
    """
    try:
        output = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(command)}: no result within {seconds:g} s") from late
    if output.returncode:
        raise Failed(f"{' '.join(command)}: {output.stderr.strip()[-2000:]}")
    return output.stdout


def until(
    what: str, look: Callable[[], T | None], *, seconds: float, every: float = 1.0, settle: bool = True
) -> T:
    """Return the first result of `look` that is neither None nor False; with `settle` a failed call is retried, too.

    Raises:
        AssertionError: there was no result within `seconds`; the message has the condition and the last failure.
    """
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            if found := look():
                return found
        except (Failed, KeyError, json.JSONDecodeError) as error:
            if not settle:
                raise
            last = f"; last: {type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s{last}")
        time.sleep(every)


def query(path: str, **parameters: str) -> str:
    """Return `path` with a query string."""
    return f"{path}?{urllib.parse.urlencode(parameters)}"
