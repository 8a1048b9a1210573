"""Readiness: what the lifespan and the prober say, and what silence means."""

from app.features.system.readiness import STALE_SECONDS, Readiness


def test_a_process_is_ready_once_it_has_started_and_the_database_was_seen() -> None:
    readiness = Readiness()
    assert readiness.obstacle == "starting"
    readiness.ready()
    assert readiness.obstacle == "the database has not been looked at yet"
    readiness.report("")
    assert readiness.obstacle == ""
    assert readiness.phase == "ready"


def test_good_news_before_the_start_is_done_does_not_make_it_ready() -> None:
    readiness = Readiness()
    readiness.report("")
    assert readiness.obstacle == "starting"
    readiness.ready()
    assert readiness.obstacle == ""


def test_trouble_with_the_database_comes_and_goes() -> None:
    readiness = Readiness()
    readiness.ready()
    readiness.report("the database cannot be reached")
    assert readiness.obstacle == "the database cannot be reached"
    readiness.report("")
    assert readiness.obstacle == ""


def test_a_draining_process_never_becomes_ready_again() -> None:
    readiness = Readiness()
    readiness.ready()
    readiness.drain()
    readiness.report("")
    readiness.ready()
    assert readiness.obstacle == "draining"


def test_without_news_the_database_counts_as_away() -> None:
    moment = 0.0
    readiness = Readiness(lambda: moment)
    readiness.ready()
    readiness.report("")
    moment = STALE_SECONDS
    assert readiness.obstacle == ""
    moment += 0.1
    assert readiness.obstacle == "nobody looks at the database any more"
    readiness.report("")
    assert readiness.obstacle == ""
