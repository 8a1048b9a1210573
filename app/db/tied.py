"""Ties a child to this process: it does not outlive it."""

TIED = """
import os, signal, sys
parent, uid, gid, capability, *command = sys.argv[1:]
try:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl
except (ImportError, AttributeError):
    libc = None
if uid:
    os.setgroups([])
    os.setgid(int(gid))
    if capability:
        libc.prctl(8, 1, 0, 0, 0)
    os.setuid(int(uid))
    if capability:
        only = 1 << int(capability)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(only, only, only))
        libc.prctl(47, 2, int(capability), 0, 0)
if libc:
    libc.prctl(1, signal.SIGTERM)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
"""Becomes ``command``, which gets SIGTERM when the program that started it dies (Linux: prctl(2), PR_SET_PDEATHSIG).

With ``uid`` it runs as that user, with ``capability`` it keeps that one (capset(2), PR_SET_KEEPCAPS, PR_CAP_AMBIENT). A
process of its own does this because Python may not run code between fork and exec while there are threads."""
