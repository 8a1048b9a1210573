"""``store import`` and ``store export``: exports can be imported again, bad lines are reported by number."""

import asyncio
import gzip
import json
import os
import pty
import subprocess
import sys

import pytest

from tests.cli.commands import environment, only_line
from tests.cli.items import Command, fetch, lines, with_vector, write


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
def test_an_import_restores_an_export_with_vectors_times_and_ttl(store: Command, name: str) -> None:
    write(
        store.folder / "in.jsonl",
        *map(with_vector, lines(30)),
        *lines(5, index=False, ttl=60.5)[:1],
        {"namespace": ["a"], "key": "é\n", "value": {"n": 1, "deep": [{"x": None}]}, "index": ["deep[*].x"]},
        {"namespace": ["old"], "key": "1", "value": {}, "created_at": "2020-01-02T03:04:05+01:00"},
    )
    store.run("import", "in.jsonl", "--tenant", "one")
    assert "32 items of one written" in store.run("export", name, "--tenant", "one")
    assert "32 items stored for other (32 new, 0 replaced)" in store.run("import", name, "--tenant", "other")
    assert store.items("one") == store.items("other")
    assert len([row for row in store.items("other") if "docs" in row[0] and row[-1] != "None"]) == 29
    assert "2020-01-02 02:04:05" in str(store.items("other"))
    assert (store.folder / name).stat().st_mode & 0o77 == 0


def test_an_existing_item_is_replaced_kept_or_an_error_as_chosen(store: Command) -> None:
    write(store.folder / "one.jsonl", *lines(3))
    write(store.folder / "two.jsonl", *[{**line, "value": {"text": "new"}} for line in lines(4)])
    store.run("import", "one.jsonl")
    assert "1 item stored for default (1 new, 0 replaced), 3 kept" in store.run(
        "import", "two.jsonl", "--on-conflict", "keep"
    )
    assert sum('"new"' in row[2] for row in store.items()) == 1
    before = store.items()
    refused = store("import", "two.jsonl", "--on-conflict", "fail")
    assert refused.returncode == 1
    assert "['docs', 'n0'] 'k0' exists already: give --on-conflict keep or replace" in only_line(refused)
    assert store.items() == before
    assert "4 items stored for default (0 new, 4 replaced)" in store.run("import", "two.jsonl")
    assert all('"new"' in row[2] for row in store.items())
    assert [row[6] for row in store.items()] == [row[6] for row in before], "the creation times are unchanged"


BAD: list[tuple[str, str]] = [
    ("nonsense", "JSON is malformed"),
    ("[1]", "Expected `object`"),
    ('{"namespace": ["a.b"], "key": "k", "value": {}}', "a label must not contain a dot"),
    ('{"namespace": [], "key": "k", "value": {}}', "`namespace` needs a label"),
    ('{"namespace": ["a"], "key": "", "value": {}}', "`key` must not be empty"),
    ('{"namespace": ["a"], "key": "k", "value": 3}', "`value` must be an object"),
    ('{"namespace": ["a"], "key": "k"}', "missing required field `value`"),
    ('{"namespace": ["a"], "key": "k", "value": {"x": "\\u0000"}}', "which cannot be stored"),
    ('{"namespace": ["a"], "key": "k", "value": {"x": "' + "x" * 600_000 + '"}}', "larger than 524288 bytes"),
    ('{"namespace": ["a"], "key": "k", "value": ' + '{"x":' * 70 + "1" + "}" * 71, "deeper than 64 levels"),
    ('{"namespace": ["a"], "key": "k", "value": {}, "ttl": -1}', "`ttl` is a number of minutes"),
    ('{"namespace": ["a"], "key": "k", "value": {}, "index": ["["]}', "has the field '['"),
    ('{"namespace": ["a"], "key": "k", "value": {"x": "y"}, "vector": [1, 2]}', "has 2 numbers"),
    ('{"namespace": ["a"], "key": "k", "value": {}, "vector": [1]}', "the line has 1, the item has 0 indexed texts"),
    ('{"namespace": ["a"], "key": "k", "value": {"x": "y"}, "vectors": [[1e6' + ",0" * 383 + "]]}", "beyond 65504"),
    ('{"namespace": ["a"], "key": "k", "value": {"x": "y"}, "vector": [0' + ",0" * 383 + "]}", "has no direction"),
    (
        '{"namespace": ["a"], "key": "k", "value": {"x": "y"}, "embedder": "openai:x", "vector": [1]}',
        "made by openai:x",
    ),
    ('{"namespace": ["a"], "key": "k", "value": {}, "created_at": "2020-01-01T00:00:00"}', "has no time zone"),
    ('{"namespace": ["a"], "key": "k", "value": {}, "expires_at": "2999-01-01T00:00:00Z"}', "needs `ttl`"),
    ("x" * ((4 << 20) + 1), "longer than 4194304 bytes"),
]


def test_bad_lines_are_reported_by_number_and_skipped_on_request(store: Command) -> None:
    good = lines(2)
    write(store.folder / "bad.jsonl", good[0], *(line for line, _ in BAD), "", good[1])
    stopped = store("import", "bad.jsonl")
    assert stopped.returncode == 1
    assert only_line(stopped).startswith("line 2: JSON is malformed")
    assert only_line(stopped).endswith("nothing was stored")
    assert store.items() == []
    done = store.run("import", "bad.jsonl", "--skip-bad", "--report", "report.jsonl")
    assert f"2 items stored for default (2 new, 0 replaced), {len(BAD)} bad lines left out" in done
    report = [json.loads(line) for line in (store.folder / "report.jsonl").read_text().splitlines()]
    assert [one["line"] for one in report] == [*range(2, 2 + len(BAD))]
    for (line, words), one in zip(BAD, report, strict=True):
        assert words in one["error"], (line[:100], one)


def test_a_failed_import_keeps_complete_batches_and_says_where_to_resume(store: Command) -> None:
    write(store.folder / "in.jsonl", *lines(2500), "nonsense", *lines(2600)[2500:])
    stopped = store("import", "in.jsonl")
    assert stopped.returncode == 1
    assert "line 2501: JSON is malformed" in only_line(stopped)
    assert only_line(stopped).endswith(
        "2,000 items stored, of the lines up to 2,000 and none after it: continue with --from-line 2001"
    )
    assert len(store.items()) == 2000
    rest = store.run("import", "in.jsonl", "--from-line", "2001", "--skip-bad")
    assert "600 items stored for default (600 new, 0 replaced)" in rest
    assert len(store.items()) == 2600


def test_a_prefix_limits_import_and_export(store: Command) -> None:
    write(store.folder / "in.jsonl", *lines(9), {"namespace": ["docs", "n10"], "key": "k", "value": {}})
    stderr = store.run("import", "in.jsonl", "--prefix", "docs.n1")
    assert "3 items stored for default (3 new, 0 replaced), 7 skipped" in stderr
    store.run("import", "in.jsonl")
    store.run("export", "out.jsonl", "--prefix", "docs.n2", "--without-vectors")
    found = [json.loads(line) for line in (store.folder / "out.jsonl").read_text().splitlines()]
    assert [one["namespace"] for one in found] == [["docs", "n2"]] * 3
    assert "vectors" not in found[0]


def test_a_check_stores_nothing(store: Command) -> None:
    write(store.folder / "in.jsonl", *lines(3))
    assert "3 items can be stored" in store.run("import", "in.jsonl", "--check")
    assert store.items() == []


def test_reads_and_writes_pipes(store: Command) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines(3)).encode()
    command = [sys.executable, "-m", "app", "store"]

    def piped(action: str, given: bytes) -> bytes:
        return subprocess.run(
            [*command, action, "-"],
            cwd=store.folder,
            env=environment(DATABASE_URL=store.url),
            input=given,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout

    assert piped("import", gzip.compress(text)) == b""
    assert [json.loads(line)["key"] for line in piped("export", b"").splitlines()] == ["k0", "k1", "k2"]


def test_the_vector_index_is_rebuilt_also_after_a_failed_import(store: Command) -> None:
    sql = "select indexdef from pg_indexes where indexname like 'store_vectors_%_near_idx' order by 1"
    before = asyncio.run(fetch(store.url, sql))
    write(store.folder / "in.jsonl", *map(with_vector, lines(20)))
    write(store.folder / "bad.jsonl", *map(with_vector, lines(20)), "nonsense")
    stderr = store.run("import", "in.jsonl", "--rebuild-index")
    assert "building the index store_vectors_384_near_idx" in stderr
    assert asyncio.run(fetch(store.url, sql)) == before
    assert store("import", "bad.jsonl", "--rebuild-index").returncode == 1
    assert asyncio.run(fetch(store.url, sql)) == before


@pytest.mark.parametrize(
    "words,message",
    [
        (["import", "missing.jsonl"], "missing.jsonl cannot be read (No such file or directory)"),
        (["import", "there", "--from-line", "0"], "--from-line must be at least 1"),
        (["import", "there", "--report", "x"], "--report needs --skip-bad"),
        (["import", "there", "--prefix", "a..b"], "`--prefix` has an empty label"),
        (["import", "there", "--on-conflict", "maybe"], "argument --on-conflict: invalid choice"),
        (["export", "there"], "the file there cannot be created (File exists): name a new file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(store: Command, words: list[str], message: str) -> None:
    write(store.folder / "there")
    done = store(*words)
    assert done.returncode == 2
    assert only_line(done).startswith(message)


@pytest.mark.parametrize("colour", [True, False])
def test_progress_is_shown_on_a_terminal_and_coloured_unless_no_color(store: Command, colour: bool) -> None:
    write(store.folder / "in.jsonl", *lines(3000))
    ours, theirs = pty.openpty()
    more = {} if colour else {"NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "store", "import", "in.jsonl"],
        cwd=store.folder,
        env=environment(DATABASE_URL=store.url, **more),
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # Linux reports the closed end like this
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    text = seen.decode()
    assert "items" in text
    assert "%" in text
    assert "/s" in text
    assert ("\033[36m" in text) is colour
    assert "3,000 items stored for default" in text.rsplit("\033[2K", 1)[-1]
