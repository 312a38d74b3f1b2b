"""A Debian root, and files out of Debian packages for it: what the local images stand on."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from images_tools import KEY_LABEL, pack

from marketfeed_devtools import cache, docker
from marketfeed_devtools.programs import CommandFailed, Unavailable, require, run, say

SUITE: Final = "trixie"
MIRROR: Final = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES: Final = ("ca-certificates", "python3", "python3-venv", "tzdata")
# What a container needs no copy of.
_LEFT_OUT: Final = (
    "./dev/*", "./proc/*", "./sys/*", "./tmp/*", "./etc/hostname", "./etc/resolv.conf", "./var/lib/apt/lists/*",
    "./var/cache/apt/*", "./var/log/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*",
)  # fmt: skip


def key() -> str:
    """What the root hangs on."""
    return cache.digest(SUITE, *PACKAGES, *_LEFT_OUT)


def root() -> Path:
    """The root's folder; the first call makes it. It keeps its package lists, to fetch more packages for it.

    Raises:
        Unavailable: not root, or no debootstrap.
    """
    return cache.once(f"debian-{SUITE}-{key()}", _debootstrap, ("etc/debian_version",))


def _debootstrap(folder: Path) -> None:
    if os.geteuid() != 0:
        raise Unavailable("a Debian root can only be made by root")
    program = require("debootstrap", "makes the images' Debian root (Debian: debootstrap)")
    say(f"debootstrap {SUITE}: once, about a minute")
    # Nobody needs this root after a power cut: dpkg waits for the disk after each file otherwise.
    unsafe = folder / "etc/dpkg/dpkg.cfg.d/unsafe-io"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text("force-unsafe-io\n")
    run([program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, folder, MIRROR])
    unsafe.unlink()
    # An interpreter by its usual name, as the official Python images have it.
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")


def import_base(reference: str, label: str) -> None:
    """The root as an image."""
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    with subprocess.Popen(
        ["tar", "-C", root(), "--numeric-owner", *left_out, "-c", "."], stdout=subprocess.PIPE
    ) as tar:
        run(
            [docker.client(), "import", "--change", f"LABEL {KEY_LABEL}={label}", "--change", 'CMD ["python3"]', "-",
             reference],
            stdin=tar.stdout,
        )  # fmt: skip
        assert tar.stdout is not None
        tar.stdout.close()
    if tar.returncode:
        raise CommandFailed(f"tar of {root()} ended with {tar.returncode}")


def packages(*names: str) -> list[Path]:
    """The package files of `names` and of all they need that the root lacks.

    Debian's own scripts are not run: what is taken out of the packages are files.
    """
    archives = root() / "var/cache/apt/archives"
    run(["chroot", root(), "apt-get", "clean"])
    run(
        [
            "chroot",
            root(),
            "apt-get",
            "install",
            "--yes",
            "--download-only",
            "--no-install-recommends",
            *names,
        ],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    return sorted(archives.glob("*.deb"))


def unpack(files: list[Path], folder: Path) -> None:
    """The files of packages below `folder`, laid out as the root is: /lib is /usr/lib."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"usr/{name}")
    for file in files:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as package:
            run(["tar", "-x", "--keep-directory-symlink", "-C", folder], stdin=package.stdout)


def layer(names: tuple[str, ...], archive: Path, work: Path) -> None:
    """A tar of what `names` and all they need add to the root."""
    folder = work / "layer"
    unpack(packages(*names), folder)
    for share in ("doc", "man", "lintian", "locale"):
        shutil.rmtree(folder / "usr/share" / share, ignore_errors=True)
    # As links these names are in the root already, and a tar would put folders in their place.
    pack(folder, archive, frozenset({"bin", "lib", "lib64", "sbin"}))
