"""Ties a child to this process: it does not outlive it."""

TIED = """
import os, signal, sys
parent, uid, gid, *command = sys.argv[1:]
if uid:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
except (ImportError, AttributeError):
    pass
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
"""Becomes ``command``, which gets SIGTERM when the program that started it dies (Linux: prctl(2), PR_SET_PDEATHSIG). A
process of its own does this because Python may not run code between fork and exec beside threads."""
