"""Readiness: reports of the lifespan and the database probe, and stale reports."""

from app.features.system.readiness import STALE_SECONDS, Readiness


def test_a_process_is_ready_once_it_has_started_and_the_database_was_checked() -> None:
    readiness = Readiness()
    assert readiness.not_ready_reason == "starting"
    readiness.ready()
    assert readiness.not_ready_reason == "the database has not been checked yet"
    readiness.report("")
    assert readiness.not_ready_reason == ""
    assert readiness.phase == "ready"


def test_a_good_probe_before_the_end_of_start_up_does_not_make_it_ready() -> None:
    readiness = Readiness()
    readiness.report("")
    assert readiness.not_ready_reason == "starting"
    readiness.ready()
    assert readiness.not_ready_reason == ""


def test_trouble_with_the_database_comes_and_goes() -> None:
    readiness = Readiness()
    readiness.ready()
    readiness.report("the database cannot be reached")
    assert readiness.not_ready_reason == "the database cannot be reached"
    readiness.report("")
    assert readiness.not_ready_reason == ""


def test_a_draining_process_never_becomes_ready_again() -> None:
    readiness = Readiness()
    readiness.ready()
    readiness.drain()
    readiness.report("")
    readiness.ready()
    assert readiness.not_ready_reason == "draining"


def test_a_stale_probe_counts_as_an_outage() -> None:
    moment = 0.0
    readiness = Readiness(lambda: moment)
    readiness.ready()
    readiness.report("")
    moment = STALE_SECONDS
    assert readiness.not_ready_reason == ""
    moment += 0.1
    assert readiness.not_ready_reason == "the database probe is stuck"
    readiness.report("")
    assert readiness.not_ready_reason == ""
