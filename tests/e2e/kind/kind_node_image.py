"""kind's node image where ``kindest/node`` cannot be pulled: Debian packages, Go modules and kind's own files.

Differences from an image of ``kind build node-image``: Debian's containerd, runc and CNI plugins; no
kindnetd (containerd writes a ptp configuration from the node's pod CIDR, a unit masquerades, podroutes routes between
nodes); the images have local names. NetworkPolicies are accepted and not enforced.
"""

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import kind_images
import kind_programs
from kind_images import REGISTRY
from kind_programs import KIND_VERSION, KUBERNETES_VERSION

from marketfeed_devtools import cache, docker, go
from marketfeed_devtools.programs import Unavailable, require, run

HERE: Final = Path(__file__).parent
DEBIAN_RELEASE: Final = "bookworm"
DEBIAN_PACKAGES: Final = (
    *("systemd", "systemd-sysv", "containerd", "runc", "containernetworking-plugins"),
    *("iptables", "nftables", "conntrack", "ethtool", "socat", "iproute2", "procps", "util-linux", "mount", "kmod"),
    *("libseccomp2", "e2fsprogs", "pigz", "ca-certificates", "curl", "jq", "busybox-static"),
)  # fmt: skip
"""kind's own list, without network storage, and with the packages that kind takes from elsewhere."""

_CONTAINERD_CONFIG: Final = """
# The node's CNI configuration is generated from its pod CIDR.
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
  conf_template = "/kind/cni-template.conflist"
"""
_START_SECONDS: Final = 30.0
PULL_SECONDS: Final = 300.0


def image_name() -> str:
    """Return the node image's name; its tag changes with its inputs."""
    sources = [*sorted(HERE.glob("kind_*.py")), *sorted((HERE / "files").iterdir())]
    made_of = [go.path_of(program).parent.name for program in kind_programs.NODE_PROGRAMS]
    texts = [file.read_bytes() for file in sources if file.name != "kind_cluster.py"]
    return f"{REGISTRY}/node:{KUBERNETES_VERSION}-{cache.digest(*made_of, *texts)[:12]}"


def ensure() -> str:
    """Return the node image's name; the image is built first if Docker does not have it.

    Raises:
        Unavailable: a program for the build is missing.
        CommandFailed, CalledProcessError: a step failed.
    """
    image = image_name()
    if docker.has_image(image):
        return image
    begun = time.monotonic()

    def step(words: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {words}", flush=True)

    step(f"node image {image}: programs")
    programs = kind_programs.build((kind_programs.KIND, *kind_programs.NODE_PROGRAMS))
    step("Debian root")
    debian = debian_root()
    with tempfile.TemporaryDirectory(dir=cache.folder(), prefix=".node-image-") as folder:
        work = Path(folder)
        step("images of the cluster's own components")
        (work / "images").mkdir()
        images = kind_images.build_node_images(programs, debian, work / "images")
        step("node root")
        _import_root(f"{image}-base", debian, programs, work)
        step("the images go into the node's containerd")
        _preload(f"{image}-base", image, images, work)
    _check(image, programs["kubeadm"], images)
    subprocess.run(["docker", "rmi", "--no-prune", f"{image}-base"], check=True, capture_output=True)
    step("node image done")
    return image


def pulled() -> str | None:
    """Return the node image of this kind release, pulled first if missing; None where it is unavailable."""
    text = (
        go.source(kind_programs.KIND.package, KIND_VERSION) / "pkg/apis/config/defaults/image.go"
    ).read_text()
    found = re.search(r'const Image = "([^"]+)"', text)
    assert found, f"kind {KIND_VERSION} defines its node image elsewhere"
    image = found.group(1)
    if docker.has_image(image):
        return image
    try:
        asked = subprocess.run(
            ["docker", "pull", "--quiet", image], capture_output=True, timeout=PULL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    return image if asked.returncode == 0 else None


def debian_root() -> Path:
    """Return a Debian root with the node's packages, in the cache.

    Raises:
        Unavailable: debootstrap is not installed.
        CommandFailed: it failed; with the end of its output.
    """
    key = cache.digest(DEBIAN_RELEASE, *DEBIAN_PACKAGES)[:12]
    return cache.once(f"debian-{key}", _debootstrap) / "root"


def _debootstrap(folder: Path) -> None:
    program = require("debootstrap", "creates the node's root (Debian: debootstrap)")
    root = folder / "root"
    # Durability is not needed: otherwise dpkg calls fsync for each file.
    unsafe = root / "etc/dpkg/dpkg.cfg.d/unsafe-io"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text("force-unsafe-io\n")
    run([program, "--variant=minbase", f"--include={','.join(DEBIAN_PACKAGES)}", DEBIAN_RELEASE, root])
    unsafe.unlink()
    run(["chroot", root, "apt-get", "clean"])
    for waste in ("var/lib/apt/lists", *(f"usr/share/{name}" for name in ("doc", "man", "info", "locale"))):
        shutil.rmtree(root / waste, ignore_errors=True)
    (root / "etc/hostname").unlink(missing_ok=True)


def _import_root(image: str, debian: Path, programs: Mapping[str, Path], work: Path) -> None:
    root = work / "root"
    subprocess.run(["cp", "--archive", debian, root], check=True)
    source = go.source(kind_programs.KIND.package, KIND_VERSION)
    subprocess.run(
        ["cp", "-r", "--no-preserve=mode,ownership", f"{source}/images/base/files/.", root], check=True
    )
    for script in (
        *(root / "usr/local/bin").iterdir(),
        root / "kind",
        root / "kind/bin",
        *(root / "kind/bin").iterdir(),
    ):
        script.chmod(0o755)
    # kind's unit starts containerd from here, and its CNI plugins are expected there.
    (root / "usr/local/bin/containerd").symlink_to("/usr/bin/containerd")
    (root / "opt/cni").mkdir(parents=True, exist_ok=True)
    (root / "opt/cni/bin").symlink_to("/usr/lib/cni")
    _settle_services(root)
    _configure_containerd(root)
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    (root / "kind/manifests").mkdir()
    (root / "kind/version").write_text(KUBERNETES_VERSION)
    for name in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy2(programs[name], root / "usr/bin" / name)
    network = (HERE / "files/default-cni.yaml").read_text()
    (root / "kind/manifests/default-cni.yaml").write_text(
        network.replace("PODROUTES_IMAGE", kind_images.PODROUTES)
    )
    (root / "kind/manifests/default-storage.yaml").write_text(_storage_manifest(source))
    context = work / "context"
    context.mkdir()
    exclude = [f"--exclude=./{name}/*" for name in ("proc", "sys", "dev")]
    subprocess.run(
        ["tar", "-C", root, "--numeric-owner", *exclude, "-cf", context / "root.tar", "."], check=True
    )
    (context / "Dockerfile").write_text(
        "FROM scratch\nADD root.tar /\nENV container=docker\nSTOPSIGNAL SIGRTMIN+3\n"
        'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]\n'
    )
    docker.build(image, context)


def _settle_services(root: Path) -> None:
    """Configure systemd as kind's Dockerfile does, and add the masquerading unit."""
    shutil.copy2(HERE / "files/pod-masquerade.service", root / "etc/systemd/system")
    for pattern in (
        "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
        "lib/systemd/system/multi-user.target.wants/*",
        "etc/systemd/system/*.wants/*",
        "lib/systemd/system/local-fs.target.wants/*",
        "lib/systemd/system/sockets.target.wants/*udev*",
        "lib/systemd/system/sockets.target.wants/*initctl*",
        "lib/systemd/system/basic.target.wants/*",
    ):
        for file in root.glob(pattern):
            file.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as journal:
        journal.write("ReadKMsg=no\n")
    units = ("kubelet", "containerd", "undo-mount-hacks", "pod-masquerade")
    for verb, names in (("enable", units), ("mask", ("systemd-binfmt",))):
        subprocess.run(
            ["chroot", root, "systemctl", "--quiet", verb, *(f"{n}.service" for n in names)], check=True
        )


def _configure_containerd(root: Path) -> None:
    shutil.copy2(HERE / "files/cni-template.conflist", root / "kind")
    made = subprocess.run(["chroot", root, "ctr", "oci", "spec"], check=True, capture_output=True).stdout
    spec = json.loads(made)
    spec.setdefault("hooks", {}).setdefault("createContainer", []).append(
        {"path": "/kind/bin/mount-product-files.sh"}
    )
    spec["process"].pop("rlimits", None)
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(spec))
    file = root / "etc/containerd/config.toml"
    # Without CAP_SYS_RESOURCE a lower oom_score_adj is refused and no container starts.
    text, first = re.subn("restrict_oom_score_adj = false", "restrict_oom_score_adj = true", file.read_text())
    text, second = re.subn("sandbox_image = .*", f'sandbox_image = "{kind_images.PAUSE}"', text)
    assert (first, second) == (1, 1), f"kind {KIND_VERSION} configures containerd differently"
    file.write_text(text + _CONTAINERD_CONFIG)


def _storage_manifest(source: Path) -> str:
    """Return kind's own storage manifest, from its Go source, with local images."""
    text = (source / "pkg/build/nodeimage/const_storage.go").read_text()
    found = re.search(r"const defaultStorageManifest = `(.*)`", text, re.S)
    assert found, f"kind {KIND_VERSION} defines its storage manifest elsewhere"
    return (
        found.group(1)
        .replace("` + storageProvisionerImage + `", kind_images.LOCAL_PATH)
        .replace("` + storageHelperImage + `", kind_images.LOCAL_PATH_HELPER)
    )


def _preload(base: str, image: str, images: Sequence[str], work: Path) -> None:
    """Load `images` into the containerd of `base` and commit that as `image`, as ``kind build node-image`` does."""
    archive = work / "images.tar"
    subprocess.run(["docker", "save", "--output", archive, *images], check=True)
    (work / "containerd.toml").write_text(
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\noom_score = 0\n'
    )
    container = subprocess.run(
        [
            *("docker", "run", "--detach", "--network=none", f"--volume={work}:/images:ro"),
            *("--entrypoint=/usr/bin/containerd", base, "--config=/images/containerd.toml"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    ctr = ["docker", "exec", container, "ctr", "--namespace=k8s.io"]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while subprocess.run([*ctr, "version"], capture_output=True).returncode:
            if time.monotonic() > deadline:
                logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
                raise Unavailable(f"containerd did not start in the node image: {logs.stderr[-1500:]}")
            time.sleep(0.2)
        # The node unpacks them when it first runs them.
        command = ["images", "import", "--no-unpack", "--all-platforms", "--digests", "/images/images.tar"]
        subprocess.run([*ctr, *command], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["docker", "stop", container], check=True, capture_output=True)
        entrypoint = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        subprocess.run(
            ["docker", "commit", "--change", entrypoint, "--change", "CMD []", container, image],
            check=True,
            capture_output=True,
        )
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True)


def _check(image: str, kubeadm: Path, images: Sequence[str]) -> None:
    """Assert that all images that kubeadm requires are present."""
    asked = subprocess.run(
        [
            *(str(kubeadm), "config", "images", "list"),
            *("--kubernetes-version", KUBERNETES_VERSION, "--image-repository", REGISTRY),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    missing = {name for name in asked if "kube-" in name or "pause" in name} - set(images)
    if missing:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["docker", "rmi", image], capture_output=True, check=True)
        raise Unavailable(f"{image}: this kubeadm requires {', '.join(sorted(missing))}")
