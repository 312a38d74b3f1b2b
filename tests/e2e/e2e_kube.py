"""The cluster as a user has it: by kubectl, with nothing but a kubeconfig.

Services inside are reached by way of the API server (``/proxy/``), which needs no port of ours and does not break when
the pod behind it is replaced.
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
    """A command failed; says which, and what it printed."""


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
        """What kubectl prints, given `text` on its standard input.

        Raises:
            Failed: it ended with an error, or did not end within `seconds`.
        """
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(command, text=text, seconds=seconds)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply `objects` as a user would."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(whole))

    def get(self, namespace: str, *arguments: str) -> dict[str, Any]:
        """One object, or a list of them, as the API server has it."""
        found: dict[str, Any] = json.loads(
            self.run("--namespace", namespace, "get", *arguments, "-o", "json")
        )
        return found

    def find(self, namespace: str, *arguments: str) -> dict[str, Any] | None:
        """As `get`; None when it is not there."""
        told = self.run("--namespace", namespace, "get", *arguments, "--ignore-not-found", "-o", "json")
        return json.loads(told) if told.strip() else None

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """The pods that `selector` fits, but for those that are on their way out."""
        found = self.get(namespace, "pods", "--selector", selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, namespace: str, target: str, path: str, body: Any = None, *, verb: str = "") -> Any:
        """The JSON answer of ``pods/NAME:PORT`` or ``services/NAME:PORT`` at `path`; `body` makes it a POST."""
        address = f"/api/v1/namespaces/{namespace}/{target}/proxy{path}"
        if body is None:
            return json.loads(self.run(verb or "get", "--raw", address))
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(body, file)
            file.flush()
            return json.loads(self.run("create", "--raw", address, "-f", file.name))

    def text(self, namespace: str, target: str, path: str) -> str:
        """As `ask`, for an answer that is no JSON."""
        return self.run("get", "--raw", f"/api/v1/namespaces/{namespace}/{target}/proxy{path}")

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """A free local port that leads to `port` of `target`, as long as the block lasts."""
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", "--namespace", namespace]
        with subprocess.Popen(
            [*command, "port-forward", target, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                told = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+) ->", told)
                assert found, f"kubectl port-forward {target} {port} said {told!r}"
                yield int(found.group(1))
            finally:
                process.terminate()


def run(command: list[str], *, text: str | None = None, seconds: float = CALL_SECONDS) -> str:
    """What `command` prints, given `text` on its standard input.

    Raises:
        Failed: it ended with an error, or did not end within `seconds`.
    """
    try:
        told = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(command)}: no answer within {seconds:g} s") from late
    if told.returncode:
        raise Failed(f"{' '.join(command)}: {told.stderr.strip()[-2000:]}")
    return told.stdout


def until(
    what: str, look: Callable[[], T | None], *, seconds: float, every: float = 1.0, settle: bool = True
) -> T:
    """The first thing that `look` finds; None and False are not yet, and with `settle` neither is a failed call.

    Raises:
        AssertionError: nothing was found within `seconds`; says what was looked for and the last failure.
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
    """`path` with a query string."""
    return f"{path}?{urllib.parse.urlencode(parameters)}"
