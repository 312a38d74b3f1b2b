"""Run a command that is terminated when its parent process exits for any reason.

A stand-alone script that replaces itself by the command: ``python parent_death.py PARENT SIGNAL UID GID COMMAND …``.
The kernel sends SIGNAL to the command when the parent's thread exits (prctl(2), PR_SET_PDEATHSIG), even after a SIGKILL
of the parent. This is not done between fork and exec of the parent, because Python code there can deadlock. Other
systems than Linux have no such call; there only an orderly shutdown terminates the command.

The command runs as UID and GID unless they are -1.
"""

# Imported before the change of user, after which the interpreter's files may be inaccessible.
import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Replace the process by the command in the arguments."""
    parent, death_signal, uid, gid = (int(argument) for argument in sys.argv[1:5])
    command = sys.argv[5:]
    if gid != -1:
        os.setgroups([])
        os.setgid(gid)
    if uid != -1:
        os.setuid(uid)
    if sys.platform == "linux":
        _set_death_signal(death_signal)  # last, because a change of user clears it
    if os.getppid() != parent:  # the parent exited before the call
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - purpose of the script


def _set_death_signal(death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


if __name__ == "__main__":
    main()
