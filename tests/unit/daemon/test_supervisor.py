import asyncio
import dataclasses
import json
import os

import psutil
import pytest

from peer.config.limits import PauseSettings
from peer.daemon.lifecycle import State
from peer.daemon.manners import Seen
from peer.errors import ConfigurationError

LOADING = {"kind": "PhaseChanged", "phase": "loading", "reason": "loading"}
TRAINING = {"kind": "PhaseChanged", "phase": "training", "reason": "gathering"}
PAUSED = {"kind": "PhaseChanged", "phase": "paused", "reason": "paused by you"}
PROGRESS = {
    "kind": "Progress",
    "samples": 2,
    "tokens": 100,
    "loss": 3.0,
    "contribution_samples": 2,
    "contribution_weight": 100,
    "tokens_total": 100,
    "seconds": 0.1,
}
FINISHED = {
    "kind": "Finished",
    "epoch": 7,
    "state_root": "ab",
    "reason": "asked to stop",
    "saved": True,
}
END = [FINISHED, {"exit": 0}]
COMMITTED = {
    "kind": "RoundCommitted",
    "epoch": 1,
    "generation": 0,
    "loss_terms": {"Qm": 100},
    "loss": 4.5,
    "seconds_by_phase": {},
    "dropped_samples": 0,
    "dropped_tokens": 0,
}


def run(supervisor, scenario=None, **options):
    """Run a supervisor with a scenario beside it; return the exit code."""

    async def both():
        async with asyncio.timeout(20):
            if scenario is None:
                return await supervisor.run(**options)
            running = asyncio.create_task(supervisor.run(**options))
            await scenario()
            return await running

    return asyncio.run(both())


def test_a_worker_that_finishes_ends_the_daemon(supervise):
    supervisor = supervise([TRAINING, *END])
    assert run(supervisor) == 0
    assert supervisor.state is State.STOPPED
    assert supervisor.status()["reason"] == "asked to stop"


def test_a_crash_is_counted_named_and_mended(supervise, until, home):
    supervisor = supervise([TRAINING, PROGRESS, "crash"], [TRAINING, PROGRESS, "wait", *END])
    seen = []

    async def scenario():
        await until(lambda: supervisor.state is State.RESTARTING and supervisor.starts == 1)
        await until(lambda: "SIGSEGV" in supervisor.status()["reason"])
        seen.append(supervisor.status())
        await until(lambda: supervisor.state is State.TRAINING and supervisor.starts == 2)
        supervisor.finish()

    assert run(supervisor, scenario) == 0
    assert seen[0]["restarts_by_reason"] == {"crash": 1}
    status = supervisor.status()
    assert status["restarts"] == 1
    assert status["tokens_total"] == 100


def test_counters_survive_the_worker(supervise):
    supervisor = supervise([PROGRESS, "crash"], [PROGRESS, *END])
    assert run(supervisor) == 0
    text = supervisor.metrics.expose(supervisor.status(), {}).decode()
    assert "ctpeer_tokens_total 200.0" in text
    assert 'ctpeer_restarts_total{reason="crash"} 1.0' in text


def test_a_refusal_is_given_up_with_its_sentence(supervise):
    sentence = {"kind": "Refused", "text": "the tokenizer does not fit"}
    supervisor = supervise([sentence, {"exit": 78}])
    with pytest.raises(ConfigurationError, match="the tokenizer does not fit"):
        run(supervisor)
    assert supervisor.starts == 1
    assert supervisor.state is State.FAILED


def test_out_of_memory_starts_again_with_half_the_micro_batch(supervise, caplog):
    caplog.set_level("INFO")
    event = {"kind": "OutOfMemory", "text": "out of memory at a micro-batch of one"}
    supervisor = supervise([event, {"exit": 75}], END)
    assert run(supervisor) == 0
    assert supervisor.status()["restarts_by_reason"] == {"out_of_memory": 1}
    assert '"micro_batch_divisor":2' in caplog.text


def test_a_silent_worker_is_taken_for_hung_and_killed(supervise):
    supervisor = supervise([TRAINING, PROGRESS, "sleep"], END, hang_timeout_s=2.0)
    assert run(supervisor) == 0
    assert supervisor.status()["restarts_by_reason"] == {"hang": 1}


def test_junk_on_the_pipe_is_counted_and_survived(supervise):
    supervisor = supervise(["junk", "junk", PROGRESS, *END])
    assert run(supervisor) == 0
    assert supervisor.status()["tokens_total"] == 100
    text = supervisor.metrics.expose(supervisor.status(), {}).decode()
    assert "ctpeer_worker_messages_refused_total 2.0" in text


def test_a_stop_reaches_the_worker(supervise, until, caplog):
    caplog.set_level("INFO")
    supervisor = supervise([TRAINING, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.stop()
        assert supervisor.state is State.STOPPING

    assert run(supervisor, scenario) == 0
    assert '"kind":"Stop"' in caplog.text
    assert supervisor.status()["restarts"] == 0


def test_a_worker_that_does_not_stop_is_killed_and_the_exit_code_says_so(supervise, until):
    supervisor = supervise([TRAINING, "sleep"], stop_timeout_s=0.3)

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.stop()

    assert run(supervisor, scenario) == 1
    assert supervisor.state is State.STOPPED
    assert supervisor.starts == 1
    assert "did not end well (killed by SIGKILL)" in supervisor.status()["reason"]


def test_a_silent_worker_is_killed_soon_after_a_stop(supervise, until):
    supervisor = supervise([TRAINING, "sleep"], stop_timeout_s=1000.0)
    watch = supervisor._watch
    watch._patience = dataclasses.replace(watch._patience, stop_s=0.2)

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.stop()

    assert run(supervisor, scenario) == 1


def test_a_second_stop_changes_nothing_but_a_second_interrupt_ends_at_once(supervise, until):
    supervisor = supervise([TRAINING, "sleep"], stop_timeout_s=1000.0)

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.stop()
        supervisor.stop()
        await asyncio.sleep(0.1)
        assert supervisor.state is State.STOPPING
        supervisor.interrupt()

    assert run(supervisor, scenario) == 1
    assert supervisor.starts == 1


def test_an_end_that_is_not_on_the_disk_has_exit_code_1(supervise):
    unsaved = FINISHED | {"saved": False}
    assert run(supervise([TRAINING, unsaved, {"exit": 0}])) == 1


def test_a_pause_while_ending_is_refused(supervise, until):
    supervisor = supervise([TRAINING, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.finish()
        with pytest.raises(ValueError, match="there is nothing to pause"):
            supervisor.pause("paused by you")

    assert run(supervisor, scenario) == 0


def test_a_changed_micro_batch_and_repeated_work_are_logged(supervise, caplog):
    changed = {
        "kind": "MicroBatchChanged",
        "samples_before": 16,
        "samples_after": 8,
        "reason": "out of memory",
    }
    repeated = {"kind": "WorkRepeated", "samples": 2, "tokens": 128}
    assert run(supervise([changed, repeated, *END])) == 0
    assert "the micro-batch is 8 instead of 16: out of memory" in caplog.text
    assert "128 tokens of lost work are trained on again" in caplog.text


def test_a_stop_while_waiting_to_restart_ends_without_another_worker(supervise, until):
    supervisor = supervise(["crash"])

    async def scenario():
        await until(lambda: supervisor.state is State.RESTARTING and supervisor.starts == 1)
        supervisor.stop()

    assert run(supervisor, scenario) == 0
    assert supervisor.starts == 1


def test_a_stop_while_the_process_is_being_started_is_not_lost(supervise):
    supervisor = supervise([TRAINING, "wait", *END])

    async def scenario():
        await asyncio.sleep(0)  # the run has begun, its worker has not
        supervisor.stop()

    assert run(supervisor, scenario) == 0


def test_a_pause_outlives_the_worker(supervise, until, caplog):
    caplog.set_level("INFO")
    supervisor = supervise([TRAINING, "wait", PAUSED, "crash"], [PAUSED, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.pause("paused by you")
        await until(lambda: supervisor.starts == 2 and supervisor.state is State.PAUSED)
        supervisor.resume()

    assert run(supervisor, scenario) == 0
    assert '"paused":"paused by you"' in caplog.text
    assert '"kind":"Resume"' in caplog.text


def test_a_pause_for_a_time_ends_by_itself(supervise, until, caplog):
    caplog.set_level("INFO")
    supervisor = supervise([TRAINING, "wait", PAUSED, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor.pause("paused by you", 0.2)

    assert run(supervisor, scenario) == 0
    assert '"kind":"Resume"' in caplog.text


def test_a_start_that_is_to_be_paused_says_how_to_go_on(supervise, until, caplog):
    caplog.set_level("INFO")
    assert run(supervise(END), paused=True) == 0
    assert '"paused":"started paused; `ctpeer resume` begins"' in caplog.text


def test_a_quiet_worker_shows_in_the_reason(supervise, until, monkeypatch):
    monkeypatch.setattr("peer.daemon.supervisor._QUIET_AFTER_S", 0.1)
    supervisor = supervise([TRAINING, "sleep"], stop_timeout_s=0.1)

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        await until(lambda: "no word from the worker" in supervisor.status()["reason"])
        supervisor.stop()

    assert run(supervisor, scenario) == 1


def test_no_child_is_left_behind(supervise):
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    run(supervise([TRAINING, "crash"], [PROGRESS, *END]))
    assert set(psutil.Process(os.getpid()).children(recursive=True)) <= before


def test_the_last_status_is_kept_for_whoever_asks_later(supervise, home):
    run(supervise([PROGRESS, *END]))
    assert '"tokens_total": 100' in home.last_status_path.read_text()


@pytest.fixture
def systemd(listener, monkeypatch):
    """Have the supervisor started as systemd does, with a watchdog of that many seconds."""

    def make(watchdog_s):
        monkeypatch.setenv("NOTIFY_SOCKET", str(listener.path))
        monkeypatch.setenv("WATCHDOG_USEC", str(round(watchdog_s * 1e6)))
        return listener

    return make


def test_systemd_is_told_of_a_life_from_the_start_to_the_end(
    supervise, until, systemd, make_loaded
):
    listener = systemd(2.0)
    loaded = json.loads(make_loaded().encode())
    supervisor = supervise([LOADING, "wait", loaded, TRAINING, PROGRESS, "wait", *END])
    before, after = [], []

    async def scenario():
        await until(lambda: "STATUS=starting: loading" in before or before.extend(listener.heard()))
        supervisor.pause("go on")  # the stand-in waits for any command
        await until(lambda: "READY=1" in after or after.extend(listener.heard()))
        await until(lambda: any("training" in w for w in after) or after.extend(listener.heard()))
        supervisor.stop()

    assert run(supervisor, scenario) == 0
    assert "READY=1" not in before
    assert "EXTEND_TIMEOUT_USEC=60000000" in before
    assert "STATUS=training: gathering; epoch 0" in after
    assert "WATCHDOG=1" in after
    assert "STOPPING=1" in listener.heard()


def test_a_daemon_that_begins_paused_is_ready(supervise, until, systemd):
    listener, heard = systemd(2.0), []
    supervisor = supervise([PAUSED, "wait", *END])

    async def scenario():
        await until(lambda: "READY=1" in heard or heard.extend(listener.heard()))
        supervisor.stop()

    assert run(supervisor, scenario, paused=True) == 0


def test_a_watchdog_hears_nothing_of_a_worker_that_hangs_until_another_takes_its_place(
    supervise, until, systemd, caplog
):
    caplog.set_level("INFO")
    listener = systemd(2.0)
    supervisor = supervise([TRAINING, PROGRESS, "sleep"], [TRAINING, PROGRESS, "wait", *END])
    hung, later = [], []

    async def scenario():
        await until(lambda: "nothing for 2 s" in supervisor._watch.pulse()[1])
        listener.heard()
        await until(lambda: supervisor.state is State.RESTARTING or hung.extend(listener.heard()))
        await until(lambda: "WATCHDOG=1" in later or later.extend(listener.heard()))
        await until(lambda: supervisor.starts == 2 and supervisor.state is State.TRAINING)
        supervisor.stop()

    assert run(supervisor, scenario) == 0
    assert "WATCHDOG=1" not in hung
    assert "the worker said nothing for 2 s: it is killed" in caplog.text
    assert supervisor.status()["restarts_by_reason"] == {"hang": 1}


def test_the_curves_survive_a_crash_and_the_daemons_own_end(supervise):
    again = COMMITTED | {"epoch": 2, "loss": 4.0}
    assert run(supervise([TRAINING, COMMITTED, "crash"], [TRAINING, again, *END])) == 0
    later = supervise([TRAINING, COMMITTED | {"epoch": 3, "loss": 3.5}, *END])
    assert run(later) == 0
    assert later.snapshot.history.shown()["loss"] == [[1, 4.5], [2, 4.0], [3, 3.5]]


def test_a_machine_on_its_battery_pauses_and_shows_it(supervise, until, caplog):
    caplog.set_level("INFO")
    supervisor = supervise([PAUSED, "wait", *END])
    supervisor._senses.look = lambda: Seen(weekday=0, minute=0, on_battery=True)

    async def scenario():
        await until(lambda: supervisor.state is State.PAUSED)
        assert supervisor.status()["pause"]["by"] == "battery"
        supervisor.resume()

    assert run(supervisor, scenario) == 0
    assert supervisor.status()["pause"] == {
        "by": None,
        "reason": None,
        "until_unix_time_s": None,
        "causes": [],
        "overruled": ["battery"],
        "watched": ["battery"],
    }
    assert '"paused":"the machine runs on its battery' in caplog.text


def test_a_battery_that_is_plugged_in_lets_training_go_on(supervise, until, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr("peer.daemon.supervisor._SENSE_S", 0.05)
    supervisor = supervise([TRAINING, "wait", PAUSED, "wait", *END])
    power = iter([False, True])
    supervisor._pauses._settings = PauseSettings(calm_s=1.0)
    supervisor._senses.look = lambda: Seen(weekday=0, minute=0, on_battery=next(power, False))
    assert run(supervisor) == 0
    assert 'told {"kind":"Pause","reason":"the machine runs on its battery' in caplog.text
    assert 'told {"kind":"Resume"}' in caplog.text


def test_a_worker_beyond_the_memory_limit_starts_again_with_half(supervise, make_loaded, caplog):
    caplog.set_level("INFO")
    loaded = json.loads(make_loaded(micro_batch=16).encode())
    supervisor = supervise([loaded, TRAINING, "sleep"], END)
    supervisor._watch._limit_bytes = 1e6
    assert run(supervisor) == 0
    assert supervisor.status()["restarts_by_reason"] == {"out_of_memory": 1}
    assert '"micro_batch_divisor":2' in caplog.text


def test_a_memory_limit_too_small_for_one_sample_is_refused_in_words(supervise, make_loaded):
    loaded = json.loads(make_loaded(micro_batch=1).encode())
    supervisor = supervise([loaded, TRAINING, "sleep"])
    supervisor._watch._limit_bytes = 1e6
    with pytest.raises(ConfigurationError, match=r"limits.memory_mb allows 1, with no smaller"):
        run(supervisor)
    assert supervisor.starts == 1


def test_a_look_at_the_memory_of_one_worker_counts_against_no_other(supervise, until, monkeypatch):
    looks = []

    def tree_bytes(pid):
        looks.append(pid)
        return 2e6 if looks.count(pid) == 1 else 0.0

    monkeypatch.setattr("peer.daemon.memory_watch.tree_bytes", tree_bytes)
    supervisor = supervise(
        [TRAINING, "wait", "crash"], [TRAINING, "wait", "crash"], [TRAINING, "wait", *END]
    )
    supervisor._watch._limit_bytes = 1e6

    async def scenario():
        for count in (1, 2, 3):
            await until(lambda count=count: len(set(looks)) == count)
            if count == 3:  # this one lives on, and is looked at again
                await until(lambda: looks.count(looks[-1]) == 3)
            else:
                await until(lambda: looks)
            supervisor.resume()

    assert run(supervisor, scenario) == 0
    assert supervisor.status()["restarts_by_reason"] == {"crash": 2}


def test_a_first_micro_batch_is_waited_for_longer_than_the_ones_after_it(supervise, until, caplog):
    supervisor = supervise(
        [TRAINING, "sleep"], [TRAINING, PROGRESS, "sleep"], END, hang_timeout_s=2.0
    )
    watch, limits = supervisor._watch, []
    watch._patience = dataclasses.replace(watch._patience, start_s=3.0)

    async def scenario():
        for start in (1, 2):
            await until(lambda start=start: supervisor.starts == start)
            await until(lambda: supervisor.state is State.TRAINING)
            await asyncio.sleep(0.1)  # PROGRESS has no state of its own
            limits.append(watch.silence_s()[1])
            await until(lambda start=start: supervisor.starts > start)

    assert run(supervisor, scenario) == 0
    assert limits == [3.0, 2.0]
    assert "the worker said nothing for 3 s: it is killed" in caplog.text
    assert "the worker said nothing for 2 s: it is killed" in caplog.text


def test_a_watchdog_is_pinged_while_a_long_step_is_within_its_measure(supervise, until, systemd):
    listener, heard = systemd(0.4), []
    supervisor = supervise([TRAINING, "wait", PROGRESS, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        await asyncio.sleep(1.5)  # a micro-batch, several times as long as the watchdog waits
        supervisor.resume()
        await until(lambda: supervisor.snapshot.tokens_total)
        assert supervisor._watch.silence_s()[1] > 4.0
        listener.heard()
        await asyncio.sleep(1.5)
        heard.extend(listener.heard())
        supervisor.stop()

    assert run(supervisor, scenario) == 0
    assert heard.count("WATCHDOG=1") >= 2
    assert supervisor.status()["restarts"] == 0


def break_down(*_arguments, **_named):
    raise OSError(24, "Too many open files")


def test_a_supervisor_that_can_no_longer_watch_ends_with_a_traceback(
    supervise, until, caplog, monkeypatch, home
):
    """An OSError must not leave as one: for the command that is a configuration to mend."""
    supervisor = supervise([TRAINING, "sleep"])
    supervisor._watch._limit_bytes = 1e9

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        monkeypatch.setattr("peer.daemon.memory_watch.tree_bytes", break_down)

    assert run(supervisor, scenario) == 1
    assert supervisor.state is State.FAILED
    assert "Traceback" in caplog.text
    assert "Too many open files" in json.loads(home.last_status_path.read_text())["reason"]
    assert not psutil.Process(os.getpid()).children(recursive=True)


def test_a_supervisor_that_can_no_longer_tell_how_it_is_ends_with_a_traceback(
    supervise, until, caplog
):
    supervisor = supervise([TRAINING, "sleep"])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        supervisor._herald.tell = break_down

    assert run(supervisor, scenario) == 1
    assert supervisor.state is State.FAILED
    assert "break_down" in caplog.text


def test_a_worker_whose_output_can_no_longer_be_read_ends_the_daemon(supervise, until, caplog):
    supervisor = supervise([TRAINING, "sleep"])
    supervisor._workers._hearing.log_output = lambda _worker: asyncio.to_thread(break_down)
    assert run(supervisor) == 1
    assert "Too many open files" in caplog.text


def test_a_word_of_the_worker_that_breaks_us_ends_the_daemon(supervise, caplog, monkeypatch):
    supervisor = supervise([PROGRESS, "sleep"])
    monkeypatch.setattr(supervisor.metrics, "apply", break_down)
    assert run(supervisor) == 1
    assert supervisor.state is State.FAILED
    assert "break_down" in caplog.text


def failures(supervisor, part):
    text = supervisor.metrics.expose(supervisor.status(), {}).decode()
    [line] = [line for line in text.splitlines() if f'failures_total{{part="{part}"}}' in line]
    return float(line.split()[1])


def test_a_look_at_the_machine_that_fails_is_counted_said_once_and_tried_again(
    supervise, until, caplog, monkeypatch
):
    monkeypatch.setattr("peer.daemon.supervisor._SENSE_S", 0.02)
    supervisor = supervise([TRAINING, "wait", PAUSED, "wait", *END])
    supervisor._senses._pause = PauseSettings(on_battery=True)
    supervisor._pauses._settings = PauseSettings(on_battery=True)
    supervisor._senses.look = break_down

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        await until(lambda: failures(supervisor, "senses") >= 4.0)
        assert caplog.text.count("Traceback") == 1
        supervisor._senses.look = lambda: Seen(weekday=0, minute=0, on_battery=True)
        await until(lambda: supervisor.state is State.PAUSED)
        supervisor.stop()

    assert run(supervisor, scenario) == 0


def test_a_status_that_cannot_be_made_is_counted_and_training_goes_on(
    supervise, until, caplog, monkeypatch
):
    monkeypatch.setattr("peer.daemon.supervisor._STATUS_KEPT_EVERY_S", 0.02)
    supervisor = supervise([TRAINING, "wait", *END])

    async def scenario():
        await until(lambda: supervisor.state is State.TRAINING)
        with monkeypatch.context() as broken:
            broken.setattr(supervisor, "_invite", break_down)
            broken.setattr("peer.daemon.keepsakes.json.dumps", break_down)
            await until(lambda: "status" in supervisor._failing)
        await until(lambda: "status" not in supervisor._failing)
        assert failures(supervisor, "status") >= 1.0
        supervisor.stop()

    assert run(supervisor, scenario) == 0
    assert caplog.text.count("Traceback") == 1
