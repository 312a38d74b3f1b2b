#!/usr/bin/env python3
"""A Docker engine and docker compose for the whole-system tests: what is there is used, what is missing is added.

A running engine is taken as it is. Where none runs and we are root, Debian's packages are installed, each only when its
program is missing, and an engine is started whose containers reach nobody outside this machine. Only an engine that was
started here is ever stopped.
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
_SYS_RESOURCE: Final = 24  # its bit, see capabilities(7)
_RUNTIME: Final = "runc-without-sys-resource"
_outliving: Final[list[subprocess.Popen[bytes]]] = []
"""Engines that may run on after this process; held, because Python warns of a running child that is forgotten."""
_PACKAGES: Final = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
}


def is_running() -> bool:
    """Whether an engine answers."""
    client = shutil.which("docker")
    return (
        client is not None
        and not subprocess.run([client, "info"], capture_output=True, check=False).returncode
    )


def install_missing() -> None:
    """Debian's packages of the programs that are missing.

    Raises:
        Unavailable: something is missing and cannot be installed here.
    """
    missing = sorted({package for program, package in _PACKAGES.items() if not find(program)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"{', '.join(missing)} must be installed: only root on Debian can do so from here")
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A package that starts a service of its own would take the socket: policy-rc.d says no, as in Debian's own chroots.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run(["apt-get", "update", "-q"], env=environment)
        run(["apt-get", "install", "--yes", "--no-install-recommends", "-q", *missing], env=environment)
    finally:
        if ours:
            policy.unlink()


def start() -> bool:
    """Make sure that an engine runs; whether it had to be started.

    Raises:
        Unavailable: none runs and none can be started here; the text says why.
    """
    with locked("docker"):
        if os.geteuid() == 0:
            install_missing()
        if is_running():
            return False
        if os.geteuid() != 0:
            raise Unavailable("no Docker engine answers, and only root can start one")
        _start()
        return True


def _state() -> Path:
    folder = cache.folder() / "docker"
    folder.mkdir(exist_ok=True)
    return folder


def _start() -> None:
    log = _state() / "dockerd.log"
    # Names are asked nowhere outside; the stack's own are answered by the engine.
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
    """Refuse what containers send out by the machine's own interface; its name, "" without one."""
    found = re.search(r" dev (\S+)", run(["ip", "-4", "route", "show", "default"]))
    if found is None:
        return ""
    run([require("iptables", "keeps containers off the network"), "-I", *_rule(found[1])])
    return found[1]


def _rule(interface: str) -> list[str]:
    return ["DOCKER-USER", "-o", interface, "-j", "REJECT"]


def stop() -> bool:
    """Stop the engine that `start` started; False when it started none. Images and volumes stay."""
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
    """The folder for DOCKER_CONFIG with the plugin `docker compose`, built from its Go module; no engine is needed.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: the build failed.
    """
    plugin = "cli-plugins/docker-compose"

    def make(folder: Path) -> None:
        # Its own go.mod has directives that hold only for a main module: so it is built as one, where Go keeps it.
        module = go.source(COMPOSE_MODULE, COMPOSE_VERSION)
        linking = f"-s -w -X {COMPOSE_MODULE}/internal.Version={COMPOSE_VERSION}"
        go.build(go.Program("docker-compose", "./cmd", module, linking=linking), folder / plugin)

    return cache.once(f"docker-compose-{COMPOSE_VERSION}", make, (plugin,))


@functools.cache
def compose() -> tuple[list[str], dict[str, str]]:
    """The command `docker compose`, and the variables that it needs; built from its Go module where there is none.

    Raises:
        Unavailable: it is not there and cannot be built.
    """
    client = docker.builder()
    if not subprocess.run([client, "compose", "version"], capture_output=True, check=False).returncode:
        return [client, "compose"], {}
    return [client, "compose"], {"DOCKER_CONFIG": str(compose_plugin())}


def main() -> int:
    """Exit code 0 when done, 1 when something failed, 3 when the machine lacks something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "action", choices=("start", "stop", "compose"), help="compose: build it, and say how to call it"
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
