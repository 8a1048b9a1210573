"""Forked processes are like those of ``subprocess``."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fork_server
from tests.waiting import until

CODE = """
import atexit, json, os, random, sys, time
print(json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:], __name__, random.random()]))
print("wrong", file=sys.stderr)
atexit.register(print, "last words")
if sys.argv[1] == "wait":
    sys.stdout.flush()
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""
SECONDS = 20


@pytest.fixture
def module(tmp_path: Path) -> str:
    (tmp_path / "sample.py").write_text(CODE)
    return "sample"


def test_a_process_has_its_folder_environment_arguments_and_exit_code(module: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "GIVEN": "yes"}
    here = subprocess.run([sys.executable, "-m", module, "7"], cwd=tmp_path, env=env, capture_output=True, check=False)
    done = fork_server.run(module, "7", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (here.returncode, here.stderr.decode()) == (7, "wrong\n")
    assert done.stdout.rpartition(", ")[0] == here.stdout.decode().rpartition(", ")[0]
    assert done.stdout.endswith("last words\n")


def test_processes_have_their_own_random_numbers(module: str, tmp_path: Path) -> None:
    first, second = (fork_server.run(module, "0", cwd=tmp_path).stdout for _ in range(2))
    assert first != second


@pytest.mark.parametrize("new_session", [True, False])
def test_a_signal_ends_a_process(module: str, tmp_path: Path, new_session: bool) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = fork_server.start(module, "wait", cwd=tmp_path, stdout=file, start_new_session=new_session)
    until(output.read_text)
    assert process.poll() is None
    assert (os.getsid(process.pid) == process.pid) is new_session
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(SECONDS) == process.poll() == process.returncode == -signal.SIGTERM
    process.kill()


def test_an_exception_is_a_traceback_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text("1 / 0")
    done = fork_server.run("sample", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_process_inherits_nothing_that_is_open(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])")
    with (tmp_path / "other").open("w"):
        assert fork_server.run("sample", cwd=tmp_path).stdout == "[0, 1, 2]\n"


def test_the_end_of_the_fork_server_is_neither_a_process_id_nor_a_success() -> None:
    report, theirs = os.pipe()
    os.write(theirs, os.getpid().to_bytes(fork_server.PID))
    process = fork_server.ForkedProcess(["sample"], report)
    os.close(theirs)
    with pytest.raises(RuntimeError, match="the fork server has ended"):
        process.wait(SECONDS)
    with pytest.raises(RuntimeError, match="the fork server has ended"):  # else `killpg` would end the tests
        fork_server.ForkedProcess(["sample"], report)
    os.close(report)
