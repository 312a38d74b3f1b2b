"""A Debian root and files of Debian packages for it: the base of the local images."""

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
# Not needed in a container.
_LEFT_OUT: Final = (
    "./dev/*", "./proc/*", "./sys/*", "./tmp/*", "./etc/hostname", "./etc/resolv.conf", "./var/lib/apt/lists/*",
    "./var/cache/apt/*", "./var/log/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*",
)  # fmt: skip


def key() -> str:
    """Return the inputs of the root."""
    return cache.digest(SUITE, *PACKAGES, *_LEFT_OUT)


def root() -> Path:
    """Return the root's folder; the first call creates it. Its package lists are kept, for further packages.

    Raises:
        Unavailable: not root, or no debootstrap.
    """
    return cache.once(f"debian-{SUITE}-{key()}", _debootstrap, ("etc/debian_version",))


def _debootstrap(folder: Path) -> None:
    if os.geteuid() != 0:
        raise Unavailable("only root can create a Debian root")
    program = require("debootstrap", "creates the images' Debian root (Debian: debootstrap)")
    say(f"debootstrap {SUITE}: once, about a minute")
    # Durability is not needed: otherwise dpkg calls fsync for each file.
    unsafe = folder / "etc/dpkg/dpkg.cfg.d/unsafe-io"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text("force-unsafe-io\n")
    run([program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, folder, MIRROR])
    unsafe.unlink()
    # The interpreter under its usual name, as in the official Python images.
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")


def import_base(reference: str, label: str) -> None:
    """Build the root as an image."""
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
    """Return the package files of `names` and of their dependencies that the root lacks.

    Debian's own scripts are not run: only files are extracted from the packages.
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
    """Extract the files of packages below `folder`, in the root's layout: /lib is /usr/lib."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"usr/{name}")
    for file in files:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as package:
            run(["tar", "-x", "--keep-directory-symlink", "-C", folder], stdin=package.stdout)


def layer(names: tuple[str, ...], archive: Path, work: Path) -> None:
    """Return a tar of the files that `names` and their dependencies add to the root."""
    folder = work / "layer"
    unpack(packages(*names), folder)
    for share in ("doc", "man", "lintian", "locale"):
        shutil.rmtree(folder / "usr/share" / share, ignore_errors=True)
    # These names are links in the root, and a tar would replace them by folders.
    pack(folder, archive, frozenset({"bin", "lib", "lib64", "sbin"}))
