"""
Become a command that is not root and that ends when its parent does.

    python -ISB dev/as_child.py PARENT_PID plain|namespace|user COMMAND...

PostgreSQL refuses to run as root. `namespace` shows it another user and keeps root's
files its own, also below a folder that nobody else may enter; `user` changes the user
for good, where namespaces are not allowed. Touches nothing but its own process.
"""

import ctypes
import os
import pwd
import signal
import sys

from pathlib import Path


CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def enter_namespace(user: pwd.struct_passwd) -> None:
    """
    Map the caller to `user` in a namespace of its own.

    Raises:
        OSError: the kernel or the container does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, content in (
        ("setgroups", "deny"),  # user_namespaces(7): before gid_map
        ("uid_map", f"{user.pw_uid} {uid} 1"),
        ("gid_map", f"{user.pw_gid} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(content, encoding="ascii")


def become(user: pwd.struct_passwd) -> None:
    """Give up root for `user`."""
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def end_with_parent(parent: int) -> None:
    """Ask for SIGQUIT, PostgreSQL's immediate shutdown, when the parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
    if os.getppid() != parent:
        sys.exit("the parent ended first")


def main() -> None:
    """Change what is to be changed, then become the command."""
    parent, mode, *command = sys.argv[1:]
    if mode == "namespace":
        enter_namespace(pwd.getpwnam("nobody"))
    elif mode == "user":
        become(pwd.getpwnam("nobody"))
    end_with_parent(int(parent))  # last: a change of user clears it
    os.execv(command[0], command)  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    main()
