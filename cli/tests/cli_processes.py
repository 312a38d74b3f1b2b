"""Looks at the machine's processes from outside, by what their environment or command line holds."""

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """The letter that the kernel gives for a process's state (proc_pid_stat(5)); "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def holding(text: str) -> dict[int, str]:
    """Running processes that have `text` in their command line or environment: id -> command line."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (folder / "environ").read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if text in command + environment and is_alive(int(folder.name)):
            found[int(folder.name)] = command
    return found
