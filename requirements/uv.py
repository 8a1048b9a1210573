"""Run uv with the package index, mirrors and certificates that pip is configured with on this machine.

uv ignores pip's settings; its own variables take precedence. Usage: python requirements/uv.py ARGUMENTS…
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's setting: (uv's variable, the separator of several values, the variables that override it)
SAME = {
    "index-url": ("UV_DEFAULT_INDEX", " ", ("UV_INDEX_URL",)),
    "extra-index-url": ("UV_INDEX", " ", ("UV_EXTRA_INDEX_URL",)),
    "find-links": ("UV_FIND_LINKS", ",", ()),
    "trusted-host": ("UV_INSECURE_HOST", " ", ()),
    "cert": ("SSL_CERT_FILE", " ", ()),
}
# A lock uses one index; an installation may use any, because files are verified by hash.
INSTALL_ONLY = {"extra-index-url", "find-links"}


def pip_settings(listed: str) -> dict[str, str]:
    """Parse the output of ``pip config list``; later scopes override earlier ones, as in pip."""
    found = {}
    for scope in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(scope):
                found[name.removeprefix(scope)] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Mapping[str, str], given: Mapping[str, str], *, install: bool) -> dict[str, str]:
    """Return the variables to add to ``given`` so that uv behaves like pip."""
    added = {}
    for name, (variable, joint, older) in SAME.items():
        values = settings.get(name, "").split()
        if values and (install or name not in INSTALL_ONLY) and not any(v in given for v in (variable, *older)):
            added[variable] = joint.join(values)
    if "UV_INDEX" in added and "UV_INDEX_STRATEGY" not in given:
        added["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip treats several indexes
    return added


def main() -> None:
    """Replace this process with uv."""
    arguments = sys.argv[1:]
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    added = uv_environment(pip_settings(listed.stdout), os.environ, install=arguments[:2] == ["pip", "install"])
    uv = Path(sys.executable).with_name("uv")
    os.execve(uv, [str(uv), *arguments], {**os.environ, "VIRTUAL_ENV": sys.prefix, **added})  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
