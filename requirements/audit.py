"""Audit the lock files for vulnerabilities and licences, and write bills of materials (CycloneDX) to ``build/audit/``.

Usage, in the development environment: python -m requirements.audit PIP_AUDIT. The exit code is 0 if all is well, 1 for
a vulnerability or a licence that is not allowed, 3 if the vulnerability service could not be queried.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "audit"
LOCKS = (
    "runtime.txt",
    "build.txt",
    "dev.txt",
    "audit.txt",
    "docs.txt",
    "suites.txt",
    "auth.txt",
    "mcp.txt",
    "minilm.txt",
)
SHIPPED = "auth.txt"
"""The lock file of the image: the program with its extra `auth`."""
FINE, FOUND, UNKNOWN = 0, 1, 3

_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_ALSO = re.compile(r"\s+(?:AND|and)\s+|\s*[();]\s*")
_EITHER = re.compile(r"\s+OR\s+|/")


class Package(NamedTuple):
    """A pinned package; ``licence`` is empty if it is not installed on this platform.

    ``kind`` is the package URL type (https://github.com/package-url/purl-spec).
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    licence: str = ""
    kind: str = "pypi"

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:{self.kind}/{self.name}@{self.version}"


def pinned(text: str) -> list[Package]:
    """Parse a lock file."""
    starts = [*_PIN.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    return [
        Package(match[1], match[2], tuple(_HASH.findall(text[match.start() : end])))
        for match, end in zip(starts, ends, strict=True)
    ]


def vendored() -> list[Package]:
    """Return the libraries of web pages that lie in the repository; their hashes are those of the shipped files."""
    libraries = tomllib.loads((HERE / "vendored.toml").read_text(encoding="utf-8"))
    return [
        Package(name, one["version"], tuple(one["files"].values()), one["licence"], "npm")
        for name, one in libraries.items()
    ]


def licence_of(about: Any) -> str:
    """Return the licence in a package's metadata: an SPDX expression, a classifier, or a line of text."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if "License ::" in line]
    named = [line for line in classifiers if line != "OSI Approved"]
    if named:
        return " AND ".join(named)
    return str(about.get("License") or "").strip().partition("\n")[0]


def with_licence(package: Package, rules: Mapping[str, Any]) -> Package:
    """Return the package with its licence, normalised by the rules."""
    try:
        licence = rules["packages"].get(package.name) or licence_of(metadata.metadata(package.name)) or "unknown"
    except metadata.PackageNotFoundError:
        return package
    return package._replace(licence=rules["names"].get(licence, licence))


def is_allowed(licence: str, allowed: Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether every part of an expression is allowed; of alternatives one suffices."""
    parts = [part for part in _ALSO.split(re.sub(r"\(([^()]* OR [^()]*)\)", r"\1", licence)) if part]
    return bool(parts) and all(
        any(names.get(one.strip(), one.strip()).partition(" WITH ")[0] in allowed for one in _EITHER.split(part))
        for part in [names.get(part, part) for part in parts]
    )


def refused(packages: Sequence[Package], rules: Mapping[str, Any], *, shipped: bool) -> list[str]:
    """Return a line for each package whose licence is not allowed."""
    allowed = rules["allowed"] if shipped else [*rules["allowed"], *rules["development"]]
    return [
        f"{package.name} {package.version}: {package.licence}"
        for package in packages
        if package.licence
        and rules["exceptions"].get(package.name) != package.licence
        and not is_allowed(package.licence, allowed, rules["names"])
    ]


def bill(packages: Sequence[Package], version: str) -> dict[str, Any]:
    """Return the bill of materials (CycloneDX 1.5), reproducible for a lock file."""
    components = [
        {
            "type": "library",
            "bom-ref": package.purl,
            "name": package.name,
            "version": package.version,
            "purl": package.purl,
            **({"licenses": [{"license": {"name": package.licence}}]} if package.licence else {}),
            "properties": [{"name": "agent-service:sha256", "value": digest} for digest in package.hashes],
        }
        for package in packages
    ]
    own = {"type": "application", "bom-ref": "agent-service", "name": "agent-service", "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": [{"ref": "agent-service", "dependsOn": [part["bom-ref"] for part in components]}],
    }


def vulnerabilities(pip_audit: str, lock: Path, out: Path) -> int:
    """Query the vulnerabilities of each pinned version of ``lock``; write the response to ``out``."""
    out.unlink(missing_ok=True)
    command = [pip_audit, "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--timeout", "15"]
    command += ["--requirement", str(lock), "--format", "json", "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1][:300]
        print(f"{lock.name}: NOT CHECKED for vulnerabilities: the service could not be queried ({reason})")
        return UNKNOWN
    found = [
        (one["name"], one["version"], flaw["id"]) for one in answer["dependencies"] for flaw in one.get("vulns", ())
    ]
    skipped = [one for one in answer["dependencies"] if "skip_reason" in one]
    for name, version, flaw in found:
        print(f"{lock.name}: {name} {version}: {flaw}")
    if skipped:
        some = ", ".join(one["name"] for one in skipped[:3])
        print(
            f"{lock.name}: NOT CHECKED for vulnerabilities: {len(skipped)} of {len(answer['dependencies'])} ({some}…)"
        )
        print(f"  response of the service: {skipped[0]['skip_reason']}")
    if found:
        return FOUND
    return UNKNOWN if skipped else FINE


def main(words: Sequence[str]) -> int:
    """Write the reports and print the findings."""
    OUT.mkdir(parents=True, exist_ok=True)
    rules = tomllib.loads((HERE / "licences.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    outcome = FINE
    rows: list[str] = []
    for name in LOCKS[:3]:
        packages = [with_licence(package, rules) for package in pinned((HERE / name).read_text(encoding="utf-8"))]
        packages += vendored() if name == "runtime.txt" else []
        (OUT / f"{name.removesuffix('.txt')}.cdx.json").write_text(
            json.dumps(bill(packages, project["version"]), indent=1), encoding="utf-8"
        )
        rows += [f"{name} {one.name} {one.version} {one.licence or 'not for this platform'}" for one in packages]
        for line in refused(packages, rules, shipped=name == SHIPPED):
            print(f"{name}: licence not allowed: {line}")
            outcome = FOUND
    (OUT / "licences.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    answers = [
        vulnerabilities(words[0], HERE / name, OUT / f"{name.removesuffix('.txt')}.vulns.json") for name in LOCKS
    ]
    outcome = FOUND if FOUND in (outcome, *answers) else max(answers)
    print({FINE: "no known vulnerabilities", FOUND: "see above", UNKNOWN: "the audit is NOT complete"}[outcome])
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
