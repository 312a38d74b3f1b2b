"""Programs built by Go from pinned modules: one static file each, once, into the cache."""

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
    """One program.

    Attributes:
        name: of the file.
        package: Go's path of its main package.
        module: folder of the Go module that pins it; None where `version` does.
        version: the package's version, for what needs no go.mod of ours.
        tags: Go's build tags.
        linking: flags of Go's linker.
    """

    name: str
    package: str
    module: Path | None = None
    version: str = ""
    tags: str = ""
    linking: str = "-s -w"


def pinned(module: Path, path: str) -> str:
    """The version that the go.mod in `module` requires of the module `path`.

    Raises:
        ValueError: it requires no such module.
    """
    text = (module / "go.mod").read_text()
    found = re.search(rf"^(?:require |\t){re.escape(path)} (\S+)(?: //.*)?$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{module / 'go.mod'} does not require {path}")
    return found.group(1)


def kubernetes(name: str, module: Path) -> Program:
    """A program of Kubernetes' own; it knows its version only when the linker tells it."""
    version = pinned(module, "k8s.io/kubernetes")
    major, minor = version.removeprefix("v").split(".")[:2]
    told = "k8s.io/component-base/version"
    linking = f"-s -w -X {told}.gitVersion={version} -X {told}.gitMajor={major} -X {told}.gitMinor={minor}"
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", module, linking=linking)


def path_of(program: Program) -> Path:
    """Where `program` is, or would be, in the cache: a changed pin is another place."""
    return cache.folder() / _folder(program) / program.name


def built(program: Program) -> Path:
    """The file of `program`; built first where it is not there.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: the build failed; with the end of Go's own words.
    """

    def make(folder: Path) -> None:
        build(program, folder / program.name)

    return cache.once(_folder(program), make, (program.name,)) / program.name


def build(program: Program, file: Path) -> None:
    """Build `program` into `file`; its folder is made, too.

    Raises:
        Unavailable, CommandFailed: as `built`.
    """
    go = require("go", f"builds {program.name} (Debian: golang, or go.dev/dl)")
    begun = time.monotonic()
    say(f"building {program.name} ...")
    file.parent.mkdir(parents=True, exist_ok=True)
    # What a debugger needs is stripped from the program anyway: not to make it at all saves a seventh of the time.
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
    """The folder in which Go keeps the source of the module `path`; fetched first where it is not there.

    Raises:
        Unavailable: Go is not installed.
        CommandFailed: it cannot be fetched.
    """
    go = require("go", f"fetches the source of {path}")
    with tempfile.TemporaryDirectory() as outside:  # of any module of ours, for then Go asks for none
        command = [go, "mod", "download", "-json", f"{path}@{version}"]
        told = run(command, cwd=outside, env=environment(), stderr=subprocess.PIPE)
    return Path(json.loads(told)["Dir"])


def environment() -> dict[str, str]:
    """What Go builds with.

    No C, for a dynamic program does not start in an image that holds nothing else. The compiler's garbage collection
    is a tenth of its time unless it may use more memory.
    """
    return {"GOGC": "400", **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}


def _folder(program: Program) -> str:
    key = program.version
    if program.module is not None:
        files = sorted(file for file in program.module.rglob("*") if file.suffix in (".go", ".mod", ".sum"))
        texts = [
            file.read_bytes() for file in files if file.name != "tools.go"
        ]  # that only names what is built
        key = cache.digest(program.linking, program.tags, *texts)[:12]
    return f"programs/{program.name}-{key}"
