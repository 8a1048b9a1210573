"""The audit of the lock files: an incomplete audit does not pass, and a licence that is not allowed fails."""

import hashlib
import json
import sys
import tomllib
from pathlib import Path

import pytest

from requirements import audit

ROOT = Path(__file__).parents[2]
RULES = tomllib.loads((ROOT / "requirements" / "licences.toml").read_text())


@pytest.mark.parametrize(
    "licence, fine",
    [
        ("MIT", True),
        ("MIT License", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", True),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("GPL-3.0-only", False),
        ("Proprietary", False),
        ("unknown", False),
    ],
)
def test_every_part_of_a_licence_must_be_allowed(licence: str, fine: bool) -> None:
    assert audit.is_allowed(licence, RULES["allowed"], RULES["names"]) is fine


def test_every_shipped_package_has_an_allowed_licence() -> None:
    locked = audit.pinned((ROOT / "requirements" / "runtime.txt").read_text())
    packages = [audit.with_licence(package, RULES) for package in locked]
    assert len(packages) > 30
    assert audit.refused(packages, RULES, shipped=True) == []
    strange = packages[0]._replace(name="strange", licence="GPL-3.0-only")
    assert audit.refused([strange], RULES, shipped=True) == [f"strange {strange.version}: GPL-3.0-only"]


def test_every_development_package_has_an_allowed_licence() -> None:
    packages = [
        audit.with_licence(package, RULES)
        for name in audit.LOCKS
        for package in audit.pinned((ROOT / "requirements" / name).read_text())
    ]
    assert audit.refused(packages, RULES, shipped=False) == []


def test_the_bill_of_materials_names_every_package_with_its_version_and_hashes() -> None:
    packages = audit.pinned((ROOT / "requirements" / "runtime.txt").read_text())
    bill = json.loads(json.dumps(audit.bill(packages, "1.2.3")))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["name"]: part for part in bill["components"]}
    assert set(parts) == {package.name for package in packages}
    assert len({part["bom-ref"] for part in bill["components"]}) == len(packages)
    assert bill["dependencies"][0]["dependsOn"] == [part["bom-ref"] for part in bill["components"]]
    litestar = next(package for package in packages if package.name == "litestar")
    assert parts["litestar"]["purl"].endswith(f"/litestar@{litestar.version}")
    assert len(parts["litestar"]["properties"]) == len(litestar.hashes) > 0


def test_vendored_libraries_are_those_that_were_published() -> None:
    libraries = tomllib.loads((ROOT / "requirements" / "vendored.toml").read_text())
    for library in libraries.values():
        for path, digest in library["files"].items():
            assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path
    packages = audit.vendored()
    assert audit.refused(packages, RULES, shipped=True) == []
    assert {part["purl"] for part in audit.bill(packages, "1.2.3")["components"]} >= {"pkg:npm/marked@18.2.1"}


@pytest.mark.parametrize(
    "answer, code, said",
    [
        (None, audit.UNKNOWN, "NOT CHECKED"),
        ([{"name": "a", "version": "1", "vulns": []}], audit.FINE, ""),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}], audit.FOUND, "a 1: CVE-1"),
        ([{"name": "a", "skip_reason": "not found"}], audit.UNKNOWN, "NOT CHECKED"),
    ],
    ids=["unreachable", "fine", "vulnerable", "unknown to the service"],
)
def test_an_incomplete_audit_does_not_pass(
    answer: object, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a fake pip-audit, which writes its format or fails."""
    program = tmp_path / "pip-audit"
    body = "sys.exit('no route to host')" if answer is None else f"open(sys.argv[-1], 'w').write({_answer(answer)!r})"
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    program.chmod(0o755)
    assert audit.vulnerabilities(str(program), ROOT / "requirements" / "build.txt", tmp_path / "out") == code
    assert said in capsys.readouterr().out


def _answer(dependencies: object) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})
