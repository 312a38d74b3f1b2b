"""Runs a command that ends when the process that started it ends, however that happens.

A script by itself, run by path before the command it becomes: ``python tether.py PARENT SIGNAL UID GID COMMAND …``.
The kernel sends SIGNAL to the command when the starter's thread is gone (prctl(2), PR_SET_PDEATHSIG), so that even a
SIGKILL of the starter leaves nothing running. It is done here and not between fork and exec of the starter, because
Python code there can deadlock. Systems other than Linux have no such call: there only an orderly end is covered.

UID and GID, unless they are -1, are what the command runs as.
"""

# Imported before the change of user, after which the interpreter's own files may be out of reach.
import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Become the command in the arguments."""
    parent, death_signal, uid, gid = (int(argument) for argument in sys.argv[1:5])
    command = sys.argv[5:]
    if gid != -1:
        os.setgroups([])
        os.setgid(gid)
    if uid != -1:
        os.setuid(uid)
    if sys.platform == "linux":
        _die_with_parent(death_signal)  # last, because a change of user clears it
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the purpose


def _die_with_parent(death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


if __name__ == "__main__":
    main()
