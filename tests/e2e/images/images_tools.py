"""Shared by the local images: names, keys, folders as layers."""

import tarfile
from pathlib import Path
from typing import Final

from marketfeed_devtools import docker

ROOT: Final = Path(__file__).resolve().parents[3]
REGISTRY: Final = "marketfeed.local"
"""Registry name of local images, from which nothing can be pulled: they are distinct from upstream images."""
KEY_LABEL: Final = "dev.marketfeed.key"


def image_key(reference: str) -> str:
    """Return the key that an image was built for; "" when there is no such image."""
    return docker.label_of(reference, KEY_LABEL)


def pack(folder: Path, archive: Path, leave_out: frozenset[str] = frozenset()) -> None:
    """Return a tar of `folder`, owned by root, without the top-level names in `leave_out`."""

    def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    with tarfile.open(archive, "w") as tar:
        for item in sorted(folder.iterdir()):
            if item.name not in leave_out:
                tar.add(item, item.name, filter=owned_by_root)
