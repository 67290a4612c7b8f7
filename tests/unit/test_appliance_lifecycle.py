"""What is started, restarted and stopped when: no process, no clock."""

import pytest

from appliance.lifecycle import (
    SILENT_S,
    STOPPED_S,
    Announce,
    Finish,
    Kill,
    Lifecycle,
    ProcessSpec,
    Role,
    Say,
    ShowLog,
    Spawn,
    Terminate,
    describe,
)

REDIS = ProcessSpec("redis", ("redis",), stop_rank=3)
MIGRATE = ProcessSpec("migrate", ("migrate",), role=Role.STEP)
WEB = ProcessSpec("web", ("web",), stop_share=3)
DISPATCHER = ProcessSpec("dispatcher", ("dispatcher",), stop_rank=1, stop_share=3)
WORKER = ProcessSpec("worker", ("worker",), stop_rank=2)
PROBE = ProcessSpec("probe", ("probe",), role=Role.PROBE)
THEN = ProcessSpec("then", ("then",), role=Role.AFTERWARDS)
PLAN = [REDIS, MIGRATE, WEB, DISPATCHER, WORKER, PROBE, THEN]


def without_words(actions):
    return [action for action in actions if not isinstance(action, Say)]


def serving(now=0.0):
    life = Lifecycle(PLAN, shutdown_s=8.0)
    life.start(now)
    life.exited("migrate", 0, now)
    life.exited("probe", 0, now)
    life.exited("then", 0, now)
    return life


def test_a_step_holds_back_what_stands_behind_it():
    life = Lifecycle(PLAN, shutdown_s=8.0)
    assert life.start(0.0) == [Spawn("redis"), Spawn("migrate")]
    assert life.exited("migrate", 0, 1.0) == [Spawn("web"), Spawn("dispatcher"), Spawn("worker"), Spawn("probe")]
    assert life.next_deadline() is None


def test_everything_serves_when_the_probe_says_so():
    life = Lifecycle(PLAN, shutdown_s=8.0)
    life.start(0.0)
    life.exited("migrate", 0, 1.0)
    assert life.exited("probe", 0, 2.0) == [Announce(), Spawn("then")]
    assert life.exited("then", 0, 3.0) == []


def test_a_plan_without_probe_serves_when_started():
    assert Lifecycle([WEB], shutdown_s=8.0).start(0.0) == [Spawn("web"), Announce()]


def test_what_runs_afterwards_may_fail():
    life = serving()
    assert life.exited("then", 3, 1.0) == [Say("then failed (exit status 3); everything goes on")]
    assert life.next_deadline() is None


@pytest.mark.parametrize(("name", "code"), [("migrate", 1), ("redis", 0), ("web", -9), ("probe", 1)])
def test_a_death_before_everything_serves_ends_it_all(name, code):
    life = Lifecycle(PLAN, shutdown_s=8.0)
    life.start(0.0)
    if name != "migrate":
        life.exited("migrate", 0, 0.0)
    actions = life.exited(name, code, 1.0)
    assert actions[0] == ShowLog(name)
    assert name in actions[1].text
    finished = without_words(actions[2:])
    for other in ("web", "probe", "migrate", "dispatcher", "worker", "redis"):
        if not any(isinstance(action, Finish) for action in finished):
            finished += without_words(life.exited(other, -15, 2.0))
    assert finished[-1] == Finish(1)


def test_each_death_in_a_row_doubles_the_pause_up_to_ten_seconds():
    life = serving()
    now, pauses = 1.0, []
    for _ in range(9):
        [said] = life.exited("web", 1, now)
        assert said.text.startswith("web ended (exit status 1); starting it again in ")
        due = life.next_deadline()
        pauses.append(round(due - now, 3))
        assert life.expire(due - 0.001) == []
        assert life.expire(due) == [Spawn("web")]
        assert life.next_deadline() is None
        now = due
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_half_a_minute_of_health_makes_the_pause_short_again():
    life = serving()
    for _ in range(5):
        life.exited("web", 1, 1.0)
        life.expire(life.next_deadline())
    began = life.exited("web", 1, 1.0) and life.next_deadline()
    life.expire(began)
    life.exited("web", 1, began + 30.0)
    assert life.next_deadline() == pytest.approx(began + 30.1)


def test_a_process_that_dies_ten_thousand_times_overflows_nothing():
    life = serving()
    for _ in range(10_000):
        life.exited("web", -11, 1.0)
        life.expire(life.next_deadline())
    life.exited("web", -11, 1.0)
    assert life.next_deadline() == 11.0


def test_they_stop_one_after_the_other():
    life = serving()
    assert life.interrupt(10.0) == [Terminate("web")]
    assert life.exited("web", 0, 10.1) == [Terminate("dispatcher")]
    assert life.exited("dispatcher", 0, 10.2) == [Terminate("worker")]
    assert life.exited("worker", 0, 10.3) == [Terminate("redis")]
    assert life.exited("redis", 0, 10.4) == [Finish(0)]
    assert life.next_deadline() is None


def test_what_dies_early_while_others_stop_is_not_started_again():
    life = serving()
    life.interrupt(10.0)
    assert life.exited("redis", -9, 10.1) == []
    assert life.exited("web", 0, 10.2) == [Terminate("dispatcher")]
    assert life.exited("dispatcher", 0, 10.3) == [Terminate("worker")]
    assert life.exited("worker", 0, 10.3) == [Finish(0)]


def test_what_waits_for_its_restart_is_not_started_when_all_stops():
    life = serving()
    life.exited("web", 1, 9.0)
    assert life.interrupt(9.05) == [Terminate("dispatcher")]
    assert life.next_deadline() > 9.1


def test_each_has_its_share_of_the_time_and_what_is_left_of_the_others():
    life = serving()
    life.interrupt(100.0)
    assert life.next_deadline() == pytest.approx(103.0)
    life.exited("web", 0, 100.5)
    assert life.next_deadline() == pytest.approx(106.0)


def test_all_of_them_hanging_still_ends_in_time():
    life = serving()
    now = 100.0
    actions = life.interrupt(now)
    killed = []
    while not any(isinstance(action, Finish) for action in actions):
        now = life.next_deadline()
        actions = life.expire(now)
        killed += [action.name for action in actions if isinstance(action, Kill)]
    assert killed == ["web", "dispatcher", "worker", "redis"]
    assert now - 100.0 < 9.5


def test_one_wish_that_arrives_twice_is_no_hurry():
    life = serving()
    life.interrupt(10.0)
    assert life.interrupt(10.01) == []
    assert life.exited("web", 0, 10.1) == [Terminate("dispatcher")]


def test_a_second_wish_kills_everything():
    life = serving()
    life.interrupt(10.0)
    assert without_words(life.interrupt(11.0)) == [Finish(1)]
    assert life.exited("web", -9, 11.1) == []
    assert life.interrupt(12.0) == []


def test_the_front_going_while_all_stops_is_no_hurry():
    life = serving()
    life.interrupt(10.0)
    assert life.stop(12.0) == []


def test_stop_before_everything_serves():
    life = Lifecycle(PLAN, shutdown_s=8.0)
    life.start(0.0)
    assert life.interrupt(1.0) == [Terminate("migrate")]
    assert life.exited("migrate", -15, 1.1) == [Terminate("redis")]
    assert life.exited("redis", 0, 1.2) == [Finish(0)]


@pytest.mark.parametrize(("code", "words"), [(0, "exit status 0"), (-9, "SIGKILL"), (-40, "signal 40")])
def test_describe(code, words):
    assert describe(code) == words


def test_a_service_that_was_stopped_is_killed_if_it_does_not_go_on():
    life = serving()
    life.stopped("worker", 10.0)
    life.stopped("web", 10.5)
    life.continued("web")
    assert life.next_deadline() == 10.0 + STOPPED_S
    assert life.expire(10.0 + STOPPED_S - 0.1) == []
    assert without_words(life.expire(10.0 + STOPPED_S)) == [Kill("worker")]
    assert life.next_deadline() is None
    assert "starting it again" in life.exited("worker", -9, 13.1)[0].text


def test_a_service_that_has_given_a_pulse_is_killed_when_it_gives_none():
    life = serving()
    life.pulse("dispatcher", 10.0)
    life.pulse("dispatcher", 14.0)
    assert life.next_deadline() == 14.0 + SILENT_S
    assert without_words(life.expire(14.0 + SILENT_S)) == [Kill("dispatcher")]
    life.exited("dispatcher", -9, 34.1)
    life.expire(35.0)  # it is started
    assert life.next_deadline() is None  # nothing is expected of it before its first pulse


def test_who_did_not_run_itself_gives_the_others_time():
    life = serving()
    life.stopped("worker", 10.0)
    life.pulse("web", 10.0)
    assert life.expire(100.0) == []
    assert life.next_deadline() == 100.0 + STOPPED_S
    life.continued("worker")
    assert life.next_deadline() == 100.0 + SILENT_S


def test_nobody_is_given_up_while_everything_stops():
    life = serving()
    life.stopped("worker", 10.0)
    life.stop(11.0)
    assert life.expire(10.0 + STOPPED_S) == []
