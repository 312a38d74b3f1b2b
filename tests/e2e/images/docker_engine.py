#!/usr/bin/env python3
"""A Docker engine and docker compose for the whole-system tests: existing programs are used, missing ones installed.

A running engine is used unchanged. Where none runs and the user is root, Debian's packages are installed, each only
when its program is missing, and an engine is started whose containers have no access outside this machine. Only an
engine that was started here is ever stopped.
"""

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from marketfeed_devtools import cache, docker, go
from marketfeed_devtools.cache import locked
from marketfeed_devtools.programs import CommandFailed, Unavailable, exit_code, find, require, run, say

COMPOSE_MODULE: Final = "github.com/docker/compose/v2"
COMPOSE_VERSION: Final = "v2.40.3"
START_SECONDS: Final = 60.0
_SYS_RESOURCE: Final = 24  # bit number, see capabilities(7)
_RUNTIME: Final = "runc-without-sys-resource"
_outliving: Final[list[subprocess.Popen[bytes]]] = []
"""Engines that outlive this process; referenced, because Python warns about a running child without a reference."""
_PACKAGES: Final = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
}


def is_running() -> bool:
    """Return whether an engine responds."""
    client = shutil.which("docker")
    return (
        client is not None
        and not subprocess.run([client, "info"], capture_output=True, check=False).returncode
    )


def install_missing() -> None:
    """Return Debian's packages of the missing programs.

    Raises:
        Unavailable: a program is missing and cannot be installed here.
    """
    missing = sorted({package for program, package in _PACKAGES.items() if not find(program)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(
            f"{', '.join(missing)} must be installed: only root on Debian can install them from here"
        )
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A package that starts its own service would use the socket: policy-rc.d denies it, as in Debian's own chroots.
    policy = Path("/usr/sbin/policy-rc.d")
    is_written = not policy.exists()
    if is_written:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run(["apt-get", "update", "-q"], env=environment)
        run(["apt-get", "install", "--yes", "--no-install-recommends", "-q", *missing], env=environment)
    finally:
        if is_written:
            policy.unlink()


def start() -> bool:
    """Ensure that an engine runs; return whether it had to be started.

    Raises:
        Unavailable: none runs and none can be started here; the message has the reason.
    """
    with locked("docker"):
        if os.geteuid() == 0:
            install_missing()
        if is_running():
            return False
        if os.geteuid() != 0:
            raise Unavailable("no Docker engine responds, and only root can start one")
        _start()
        return True


def _state() -> Path:
    folder = cache.folder() / "docker"
    folder.mkdir(exist_ok=True)
    return folder


def _start() -> None:
    log = _state() / "dockerd.log"
    # No DNS server outside is queried; the engine resolves the stack's own names.
    command = [require("dockerd", "runs containers (Debian: docker.io)"), "--dns", "127.0.0.1"]
    if not _may_raise_limits():
        wrapper = Path(__file__).with_name("runc_without_sys_resource.py")
        command += ["--add-runtime", f"{_RUNTIME}={wrapper}", "--default-runtime", _RUNTIME]
    say(f"starting a Docker engine; its log is {log}")
    with log.open("ab") as output:
        engine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    _outliving.append(engine)
    deadline = time.monotonic() + START_SECONDS
    while not is_running():
        if engine.poll() is not None or time.monotonic() > deadline:
            engine.terminate()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise Unavailable(f"a Docker engine cannot run on this machine:\n{tail}")
        time.sleep(0.2)
    (_state() / "dockerd.json").write_text(json.dumps({"pid": engine.pid, "interface": _shut_off()}))


def _may_raise_limits() -> bool:
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bounding is None or bool(int(bounding[1], 16) >> _SYS_RESOURCE & 1)


def _shut_off() -> str:
    """Reject containers' traffic through the machine's own interface; return its name, "" without one."""
    found = re.search(r" dev (\S+)", run(["ip", "-4", "route", "show", "default"]))
    if found is None:
        return ""
    run([require("iptables", "keeps containers off the network"), "-I", *_rule(found[1])])
    return found[1]


def _rule(interface: str) -> list[str]:
    return ["DOCKER-USER", "-o", interface, "-j", "REJECT"]


def stop() -> bool:
    """Stop the engine that `start` started; return False when it started none. Images and volumes are kept."""
    with locked("docker"):
        file = _state() / "dockerd.json"
        if not file.exists():
            return False
        state = json.loads(file.read_text())
        if state["interface"]:
            subprocess.run(["iptables", "-D", *_rule(state["interface"])], capture_output=True, check=False)
        file.unlink()
        if not _is_dockerd(state["pid"]):
            return False
        os.kill(state["pid"], signal.SIGTERM)
        deadline = time.monotonic() + START_SECONDS
        while _is_dockerd(state["pid"]):
            if time.monotonic() > deadline:
                raise CommandFailed(f"dockerd, process {state['pid']}, does not end")
            time.sleep(0.2)
        return True


def _is_dockerd(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        is_zombie = "State:\tZ" in (process / "status").read_text()
        return not is_zombie and "dockerd" in (process / "cmdline").read_text()
    except OSError:
        return False


def compose_plugin() -> Path:
    """Return the folder for DOCKER_CONFIG with the plugin `docker compose`, built from its Go module without an engine.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: the build failed.
    """
    plugin = "cli-plugins/docker-compose"

    def make(folder: Path) -> None:
        # Its go.mod has directives that apply only to a main module: so it is built as one, in Go's module cache.
        module = go.source(COMPOSE_MODULE, COMPOSE_VERSION)
        linking = f"-s -w -X {COMPOSE_MODULE}/internal.Version={COMPOSE_VERSION}"
        go.build(go.Program("docker-compose", "./cmd", module, linking=linking), folder / plugin)

    return cache.once(f"docker-compose-{COMPOSE_VERSION}", make, (plugin,))


@functools.cache
def compose() -> tuple[list[str], dict[str, str]]:
    """Return the command `docker compose` and its variables; built from its Go module where it is not installed.

    Raises:
        Unavailable: it is not installed and cannot be built.
    """
    client = docker.builder()
    if not subprocess.run([client, "compose", "version"], capture_output=True, check=False).returncode:
        return [client, "compose"], {}
    return [client, "compose"], {"DOCKER_CONFIG": str(compose_plugin())}


def main() -> int:
    """Return exit code 0 on success, 1 on failure, 3 when the machine lacks a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "action", choices=("start", "stop", "compose"), help="compose: build it, and print its command"
    )
    action = parser.parse_args().action

    def work() -> None:
        if action == "stop":
            say("stopped" if stop() else "no engine was started from here")
            return
        start()
        command, variables = compose() if action == "compose" else ([docker.builder()], {})
        say(" ".join([*(f"{name}={value}" for name, value in variables.items()), *command]))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
