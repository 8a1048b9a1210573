"""Checks of the image and the stack. Each returns what was seen, or raises ``Failed``."""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from langgraph_sdk import get_client

from tests.e2e.podman import Failed, Missing, Podman
from tests.e2e.stack import ROOT, SERVICES, Stack, get_json, status, until

MAX_IMAGE_BYTES = 300_000_000
READY_SECONDS = 2.0
STARTS = 5
LEFTOVERS = ("pip", "pip3", "uv", "apt", "apt-get", "dpkg", "gcc", "cc", "ld", "make", "perl", "curl", "wget", "git")


def expect(holds: bool, what: str) -> None:
    """Raise ``Failed`` with the message ``what`` unless ``holds``."""
    if not holds:
        raise Failed(what)


def image(podman: Podman, name: str) -> str:
    """Check size, user, health check, labels and bill of materials; no package manager or compiler."""
    inspected: dict[str, Any] = json.loads(podman("image", "inspect", name))[0]
    config = inspected["Config"]
    expect(config["User"] == "10001:10001", f"the image's user is {config['User']}")
    check = (inspected.get("HealthCheck") or inspected.get("Healthcheck") or config.get("Healthcheck") or {}).get(
        "Test"
    )
    expect(check == ["CMD", "python", "-m", "app.cli.health"], f"the image's health check is {check}")
    expect(config.get("StopSignal") == "SIGTERM", "the image's stop signal is not SIGTERM")
    labels = config["Labels"]
    expect(labels["org.opencontainers.image.version"] not in {"", "unknown"}, "the image has no version")
    script = (
        f"import json, shutil, sys; bill = json.load(open('/app/sbom.cdx.json'));"
        f"print(json.dumps([[one for one in {LEFTOVERS} if shutil.which(one, path='/usr/local/sbin:/usr/local/bin:"
        f"/usr/sbin:/usr/bin:/sbin:/bin:/app/.venv/bin')], len(bill['components'])]))"
    )
    words = ("--rm", "--network", "none", "--read-only", "--no-healthcheck", "--entrypoint", "python")
    there, parts = json.loads(podman("run", *words, name, "-c", script).splitlines()[-1])
    expect(there == [], f"the image has {', '.join(there)}")
    expect(parts > 20, f"the bill of materials names {parts} packages")
    expect(inspected["Size"] < MAX_IMAGE_BYTES, f"the image has {inspected['Size'] / 1e6:.0f} MB")
    return f"{inspected['Size'] / 1e6:.0f} MB, uid 10001, health check kept, {parts} packages in its bill of materials"


def extended(podman: Podman, base: str, folder: Path) -> str:
    """Check an extended image: a package of the agents imports, and a conflicting version fails the build."""
    example = ROOT / "deploy" / "example" / "agents"
    shutil.copytree(example, folder / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    wanted = folder / "agents" / "requirements.txt"
    words = ("build", "--network", "host", "--format", "docker", "--quiet", "--build-arg", f"APP_IMAGE={base}")
    wanted.write_text("humanize\n")
    podman(*words, "--tag", f"{base}-extended", "agents", folder=folder)
    script = "import app, humanize; print(humanize.intcomma(1234567))"
    run = ("--rm", "--network", "none", "--read-only", "--no-healthcheck", "--entrypoint", "python")
    said = podman("run", *run, f"{base}-extended", "-c", script).strip()
    expect(said.endswith("1,234,567"), f"the package of the agents says {said}")
    wanted.write_text("msgspec<0.19\n")
    expect(not podman.holds(*words, str(folder / "agents")), "a conflicting version was installed")
    return "an additional package imports; a conflicting version is refused"


def contained(stack: Stack) -> str:
    """Check the confinement of the running server and of every service."""
    script = (
        "import json, os; lines = open('/proc/self/status').read().splitlines();"
        "facts = dict(line.split(':\\t', 1) for line in lines if ':\\t' in line);"
        "print(json.dumps([os.getuid(), facts['CapEff'], facts['NoNewPrivs'],"
        " [path for path in ('/', '/app', '/etc', '/usr') if os.access(path, os.W_OK)],"
        " [name for name in os.environ if 'PASSWORD' in name or 'SECRET' in name and not name.endswith('_FILE')]]))"
    )
    there = stack.containers()
    uid, capabilities, no_new, writable, secrets = json.loads(
        stack.podman("exec", there["app"], "python", "-c", script).splitlines()[-1]
    )
    expect(uid == 10001, f"the server runs as {uid}")
    expect(int(capabilities, 16) == 0, f"the server has capabilities: {capabilities}")
    expect(no_new == "1", "the server may gain privileges")
    expect(writable == [], f"the server may write to {', '.join(writable)}")
    expect(secrets == [], f"the server's environment has {', '.join(secrets)}")
    for service, name in there.items():
        host = stack.podman.inspect(name)["HostConfig"]
        expect(bool(host["ReadonlyRootfs"]), f"{service}'s root can be written to")
        expect(bool(host["Memory"]), f"{service} has no memory limit")
        expect(host.get("PidsLimit", 0) > 0, f"{service} has no limit of processes")
        expect(not host["Privileged"], f"{service} is privileged")
    return (
        f"uid {uid}, no capabilities, no new privileges, nothing writable; {len(there)} services held to their limits"
    )


def scraped(stack: Stack) -> str:
    """Check that Prometheus scrapes both servers and has loaded its rules."""
    url = f"http://127.0.0.1:{stack.prometheus}/api/v1"

    def servers() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get_json(f"{url}/query?query=up")["data"]["result"]
        return [one for one in found if one["value"][1] == "1" and one["metric"]["instance"].endswith(":9464")]

    took = until(lambda: len(servers()) == 2, 90, "both servers are scraped")
    until(lambda: bool(get_json(f"{url}/query?query=agent_runs_total")["data"]["result"]), 90, "runs are counted")
    groups = get_json(f"{url}/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    expect(bool(alerts), "no alerts are loaded")
    broken = [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] == "err"]
    expect(not broken, "; ".join(broken))
    expect(status(f"http://127.0.0.1:{stack.app}/metrics") == 404, "the published port serves metrics")
    firing = sorted({rule["name"] for rule in alerts if rule["state"] == "firing"})
    return (
        f"two servers after {took:.0f} s; {len(alerts)} alerts and {len(rules) - len(alerts)} recording rules loaded, "
        f"none broken; firing: {', '.join(firing) or 'none'}"
    )


def traced(stack: Stack) -> str:
    """Check that spans arrive at the collector."""
    name = stack.containers()["otel-collector"]
    seen: list[str] = []

    def arrived() -> bool:
        done = stack.podman.both("logs", "--tail", "400", name)
        seen[:] = [line for line in done.splitlines() if "spans" in line.lower()]
        return bool(seen)

    took = until(arrived, 60, "the collector logs spans")
    return f"after {took:.0f} s: {seen[-1][-120:]}"


async def conversation(stack: Stack, key: str) -> str:
    """Check runs through the SDK, of an agent of the deployment folder and of the one with tools."""
    async with get_client(url=f"http://127.0.0.1:{stack.app}/api/v1", api_key=key) as client:
        thread = (await client.threads.create())["thread_id"]
        for turn in (1, 2):
            said: dict[str, Any] = {"messages": [{"role": "user", "content": "Ann"}]}
            values: Any = await client.runs.wait(thread, "greeter", input=said)
            text = values["messages"][-1]["content"]
            expect(text == f"Hello, Ann. We have met {turn} times.", f"the greeter said: {text}")
        question: dict[str, Any] = {"messages": [{"role": "user", "content": "What is 12*(3+4)?"}]}
        events = [part async for part in client.runs.stream(None, "assistant", input=question, stream_mode="updates")]
        expect("84" in str(events[-2].data), f"the assistant said: {events[-2].data}")
        expect(events[-1].event == "end", f"the stream ended with {events[-1].event}")
    return "the greeter of the folder remembers its thread; the assistant's tool said 84"


def cold_start(stack: Stack) -> str:
    """Measure the time from starting a stopped container to its readiness."""
    name = stack.containers()["app"]
    inside, outside = [], []
    for _ in range(STARTS):
        stack.podman("stop", name)
        started_at = time.time()
        stack.podman("start", name)
        until(lambda: stack.ready(stack.app), 60, "the server is ready")
        now = time.time()
        started = stack.podman("container", "inspect", "--format", "{{.State.StartedAt.UnixMilli}}", name)
        inside.append(now - int(started) / 1000)
        outside.append(now - started_at)
    seen = (
        f"{statistics.median(inside):.2f} s in the container (from {min(inside):.2f} to {max(inside):.2f}), "
        f"{statistics.median(outside):.2f} s with podman's own start"
    )
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 2 * cores:
        raise Missing(f"not evaluated, the machine is busy (load {load:.1f} on {cores} cores): {seen}")
    expect(statistics.median(inside) <= READY_SECONDS, f"{seen}; it may take {READY_SECONDS:g} s")
    return seen


def doctor(stack: Stack, key: str, folder: Path) -> str:
    """Run the deployment checklist inside the server's container, and for the container from outside."""
    name = stack.containers()["app"]
    script = (
        "import subprocess, sys; open('/tmp/key', 'w').write(sys.argv[1]);"
        "words = ['agent-service', 'doctor', '--key-file', '/tmp/key', '--json', *sys.argv[2:]];"
        "done = subprocess.run(words, capture_output=True);"
        "sys.stdout.write(done.stdout.decode() or done.stderr.decode())"
    )
    left_out = ("--skip", "provider key", "--skip", "database encrypted")  # there is none; an internal network
    inside = json.loads(stack.podman("exec", name, "python", "-c", script, key, *left_out))
    engine = folder / "podman"  # the doctor runs a program of this name
    engine.write_text(f'#!/bin/sh\nexec {shlex.join(stack.podman.words)} "$@"\n', "utf-8")
    engine.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "app", "doctor", "--container", name, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    outside = json.loads(done.stdout or json.dumps({"rows": [], "holds": False, "counts": done.stderr}))
    for checklist in (inside, outside):
        wrong = [f"{row['check']}: {row['seen']}" for row in checklist["rows"] if row["status"] == "fail"]
        expect(checklist["holds"], "; ".join(wrong) or f"checks that could not be evaluated: {checklist['counts']}")
    return f"inside {inside['counts']['pass']} rows hold, of the container {outside['counts']['pass']}"


def stopped(stack: Stack) -> str:
    """Check that all services stop with exit code 0 within their grace period."""
    there = stack.containers()
    started_at = time.monotonic()
    stack.compose("stop")
    took = time.monotonic() - started_at
    codes = {service: stack.podman.inspect(name)["State"]["ExitCode"] for service, name in there.items()}
    bad = {service: code for service, code in codes.items() if code}
    expect(not bad and set(codes) == set(SERVICES), f"exit codes: {codes}")
    return f"{len(codes)} services with exit code 0 after {took:.1f} s"
