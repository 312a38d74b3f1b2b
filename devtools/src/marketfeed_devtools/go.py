"""Go programs of pinned modules, each built once into the cache as a static file."""

import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from marketfeed_devtools import cache
from marketfeed_devtools.programs import require, run, say


@dataclass(frozen=True)
class Program:
    """A Go program.

    Attributes:
        name: name of the file.
        package: path of the main package.
        module: folder of the Go module that pins it; None if `version` does.
        version: version of the package, if no go.mod pins it.
        tags: build tags.
        linking: linker flags.
    """

    name: str
    package: str
    module: Path | None = None
    version: str = ""
    tags: str = ""
    linking: str = "-s -w"


def pinned(module: Path, path: str) -> str:
    """Return the version of the module `path` that the go.mod in `module` requires.

    Raises:
        ValueError: the go.mod does not require the module.
    """
    text = (module / "go.mod").read_text()
    found = re.search(rf"^(?:require |\t){re.escape(path)} (\S+)(?: //.*)?$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} does not require {path}")
    return found.group(1)


def kubernetes(name: str, module: Path) -> Program:
    """Return a Kubernetes program; its version is set by linker flags."""
    version = pinned(module, "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    key = "k8s.io/component-base/version"
    linking = f"-s -w -X {key}.gitVersion={version} -X {key}.gitMajor={major} -X {key}.gitMinor={minor}"
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", module, linking=linking)


def path_of(program: Program) -> Path:
    """Return the path of `program` in the cache, whether built or not; another pinned version has another path."""
    return cache.folder() / _folder(program) / program.name


def built(program: Program) -> Path:
    """Return the file of `program`; build it first if it does not exist.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: the build failed; has the end of Go's output.
    """

    def make(folder: Path) -> None:
        build(program, folder / program.name)

    return cache.once(_folder(program), make, (program.name,)) / program.name


def build(program: Program, file: Path) -> None:
    """Build `program` into `file`; create its folder.

    Raises:
        Unavailable, CommandFailed: as `built`.
    """
    go = require("go", f"builds {program.name} (Debian: golang, or go.dev/dl)")
    begun = time.monotonic()
    say(f"building {program.name} ...")
    file.parent.mkdir(parents=True, exist_ok=True)
    # Debug information is stripped anyway; not generating it saves a seventh of the time.
    flags = ["-trimpath", "-gcflags=all=-dwarf=false", "-tags", program.tags, "-ldflags", program.linking]
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".go-") as folder:
        if program.module is None:
            where = {**environment(), "GOBIN": folder}
            run([go, "install", *flags, f"{program.package}@{program.version}"], env=where)
            made = Path(folder) / program.package.rpartition("/")[2]
        else:
            made = Path(folder) / "made"
            run([go, "build", *flags, "-o", made, program.package], cwd=program.module, env=environment())
        made.rename(file)
    say(f"built {program.name} in {time.monotonic() - begun:.0f} s")


def source(path: str, version: str) -> Path:
    """Return the folder of the module's source in Go's module cache; download it first if needed.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: the download failed.
    """
    go = require("go", f"fetches the source of {path}")
    with (
        tempfile.TemporaryDirectory() as outside
    ):  # outside any Go module: inside one Go requires it in go.mod
        command = [go, "mod", "download", "-json", f"{path}@{version}"]
        response = run(command, cwd=outside, env=environment(), stderr=subprocess.PIPE)
    return Path(json.loads(response)["Dir"])


def environment() -> dict[str, str]:
    """Return the environment of Go builds.

    Without cgo, as a dynamically linked program does not start in an image without libraries. A higher GOGC saves the
    compiler's garbage collection, a tenth of its time.
    """
    return {"GOGC": "400", **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}


def _folder(program: Program) -> str:
    key = program.version
    if program.module is not None:
        files = sorted(file for file in program.module.rglob("*") if file.suffix in (".go", ".mod", ".sum"))
        texts = [
            file.read_bytes() for file in files if file.name != "tools.go"
        ]  # it only lists the built packages
        key = cache.digest(program.linking, program.tags, *texts)[:12]
    return f"programs/{program.name}-{key}"
