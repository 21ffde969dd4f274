"""Runs as root in a booted system: breaks the installed services, and reports what became of them.

One line of JSON a step goes to /out/report.jsonl: its name, the seconds it took, what was seen. A
step that fails ends the probe; the journal goes to /out/journal.txt whatever happens.
"""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

BIN = Path(sys.executable).parent
HOME = Path("/var/lib/ctpeer")
REPORT = Path("/out/report.jsonl")
DROP_IN = """[Service]
WatchdogSec={watchdog_s}
RestartSec=1
Environment=CTPEER_COMPUTE__THREADS=1 CTPEER_CHECKPOINT__INTERVAL_S=1 {more}
"""
WATCHDOG_S = 10
STEPS = []


def step(function):
    STEPS.append(function)
    return function


def run(*command):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=150
    )
    return done.returncode, done.stdout, done.stderr


def do(*command):
    code, out, err = run(*command)
    assert code == 0, (command, code, out, err)
    return out


def wait_until(condition, timeout_s, what):
    """Return what `condition` returns once that is true."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)
    return found


def show(unit="ctpeer"):
    names = "ActiveState,SubState,Result,MainPID,NRestarts,StatusText,ExecMainStatus"
    out = do("systemctl", "show", f"--property={names}", f"{unit}.service")
    return dict(line.split("=", 1) for line in out.splitlines())


def status():
    """Return the daemon's own status, or {} while it does not answer."""
    code, out, _ = run(BIN / "ctpeer", "status", "--json", "--home", HOME)
    return json.loads(out) if code == 0 else {}


def trains_beyond(epoch):
    def condition():
        now = status()
        return now if now.get("state") == "training" and (now["epoch"] or 0) > epoch else None

    return condition


def journal(unit="ctpeer"):
    return do("journalctl", "--no-pager", "-o", "cat", "-u", f"{unit}.service")


def drop_in(unit="ctpeer", watchdog_s=WATCHDOG_S, more=""):
    folder = Path(f"/etc/systemd/system/{unit}.service.d")
    folder.mkdir(exist_ok=True)
    text = DROP_IN.format(watchdog_s=watchdog_s, more=more)
    (folder / "probe.conf").write_text(text)
    do("systemctl", "daemon-reload")


def children(pid):
    """Return pid -> name of the processes below `pid`."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, name, rest = re.fullmatch(
                r"(\d+) \((.*)\) (.*)", stat.read_text()[:-1]
            ).groups()
            found[int(number)] = (name, int(rest.split()[1]))
    below, fresh = {}, {pid}
    while fresh:
        fresh = {child for child, (_, parent) in found.items() if parent in fresh} - below.keys()
        below |= {child: found[child][0] for child in fresh}
    return below


def p2pd_of(pid):
    return next((child for child, name in children(pid).items() if name == "p2pd"), None)


def exported(name):
    """Return the value of a metric of the exporter, or None while it shows none."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen("http://127.0.0.1:8472/metrics", timeout=10) as answer,
    ):
        for line in answer.read().decode().splitlines():
            if line.startswith(f"ctpeer_swarm_{name} "):
                return float(line.split()[1])
    return None


@step
def install_starts_the_service_and_it_becomes_ready():
    drop_in()
    said = do(BIN / "ctpeer", "service", "install", "--now")
    now = show()
    assert now["ActiveState"] == "active", now
    training = wait_until(trains_beyond(0), 60, "training")
    wait_until(lambda: "training" in show()["StatusText"], 10, "the status in words")
    owner = HOME.stat().st_uid
    assert owner != 0
    again = do(BIN / "ctpeer", "service", "install")
    assert "already installed" in again
    assert show()["MainPID"] == now["MainPID"]
    asked = json.loads(do(BIN / "ctpeer", "service", "status", "--json"))
    assert asked["active"], asked
    assert asked["enabled"], asked
    assert asked["version_running"] == asked["version"], asked
    return {"said": said, "epoch": training["epoch"], "status_text": show()["StatusText"]}


@step
def installing_it_again_with_now_restarts_it():
    before = wait_until(trains_beyond(0), 30, "training")
    said = do(BIN / "ctpeer", "service", "install", "--now")
    assert "already installed" in said
    now = show()
    assert now["ActiveState"] == "active", now
    assert int(now["MainPID"]) != before["pid"]
    assert not Path(f"/proc/{before['pid']}").exists()
    after = wait_until(trains_beyond(before["epoch"]), 60, "training again")
    return {"said": said, "before": before["epoch"], "after": after["epoch"]}


@step
def a_killed_dht_is_noticed_and_repaired():
    before = status()
    killed = p2pd_of(before["worker_pid"])
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: status().get("restarts_by_reason", {}).get("network"), 30, "noticed")
    after = wait_until(trains_beyond(before["epoch"]), 60, "repaired")
    fresh = wait_until(lambda: p2pd_of(after["worker_pid"]), 20, "another p2pd")
    assert fresh != killed
    assert show()["ActiveState"] == "active"
    assert show()["NRestarts"] == "0"
    return {"before": before["epoch"], "after": after["epoch"]}


@step
def a_hung_worker_is_caught_with_its_traceback():
    before = status()
    os.kill(before["worker_pid"], signal.SIGSTOP)
    wait_until(lambda: status().get("restarts_by_reason", {}).get("hang"), 30, "noticed")
    after = wait_until(trains_beyond(before["epoch"]), 60, "repaired")
    lines = journal()
    assert f"the worker said nothing for {WATCHDOG_S} s: it is killed" in lines
    assert re.search(r'worker: +File ".*peer/daemon/loop.py", line \d+ in run', lines)
    assert after["worker_pid"] != before["worker_pid"]
    assert show()["NRestarts"] == "0"
    return {"before": before["epoch"], "after": after["epoch"]}


@step
def a_hung_supervisor_is_caught_with_its_traceback_and_the_unit_restarts():
    before, worker = show(), status()["worker_pid"]
    os.kill(int(before["MainPID"]), signal.SIGSTOP)
    wait_until(lambda: show()["NRestarts"] == "1", 3 * WATCHDOG_S, "the watchdog strikes")
    after = wait_until(
        lambda: (now := show())["ActiveState"] == "active" and now, 60, "ready again"
    )
    lines = journal()
    assert "Watchdog timeout" in lines
    assert "Fatal Python error: Aborted" in lines
    assert re.search(r'^  File ".*peer/cli/start.py", line \d+ in start', lines, re.MULTILINE)
    assert after["MainPID"] != before["MainPID"]
    assert not Path(f"/proc/{worker}").exists()
    wait_until(trains_beyond(0), 60, "training")
    return {"restarts": after["NRestarts"]}


@step
def the_exporter_of_the_run_outlives_its_dht_and_a_hang():
    invite = wait_until(lambda: status().get("invite"), 30, "an invite")
    drop_in("ctpeer-monitor", watchdog_s=15)
    do(BIN / "ctpeer", "service", "install", "monitor", "--run", invite, "--now")
    before = show("ctpeer-monitor")
    assert before["ActiveState"] == "active", before
    wait_until(lambda: exported("peers") == 1.0, 60, "it sees the peer")
    os.kill(p2pd_of(int(before["MainPID"])), signal.SIGKILL)
    wait_until(lambda: exported("node_restarts_total"), 60, "the death of its p2pd is noticed")
    wait_until(lambda: exported("node_up") == 1.0, 60, "its p2pd is replaced")
    assert exported("peers") == 1.0
    assert show("ctpeer-monitor")["NRestarts"] == "0"
    os.kill(int(before["MainPID"]), signal.SIGSTOP)
    wait_until(lambda: show("ctpeer-monitor")["NRestarts"] == "1", 40, "the watchdog strikes")
    wait_until(lambda: show("ctpeer-monitor")["ActiveState"] == "active", 60, "ready again")
    assert "Fatal Python error: Aborted" in journal("ctpeer-monitor")
    wait_until(lambda: exported("peers") == 1.0, 60, "it sees the peer again")
    do(BIN / "ctpeer", "service", "uninstall", "monitor")
    return {"before": before["MainPID"], "status_text": before["StatusText"]}


@step
def a_stop_writes_a_checkpoint():
    before = wait_until(trains_beyond(0), 30, "training")
    started_s = time.monotonic()
    do("systemctl", "stop", "ctpeer.service")
    seconds = time.monotonic() - started_s
    last = json.loads((HOME / "last_status.json").read_text())
    assert show()["Result"] == "success", show()
    assert last["epoch"] >= before["epoch"], (last["epoch"], before["epoch"])
    assert last["checkpoint"]["epoch"] == last["epoch"]
    return {"seconds": seconds, "epoch": last["epoch"]}


@step
def a_configuration_that_cannot_work_is_not_tried_again():
    do("systemctl", "reset-failed", "ctpeer.service")
    drop_in(more="CTPEER_COMPUTE__DEVICE=toaster")
    code, _, _ = run("systemctl", "start", "ctpeer.service")
    assert code != 0
    now = show()
    drop_in()
    assert now["ExecMainStatus"] == "78", now
    assert (now["ActiveState"], now["NRestarts"]) == ("failed", "0"), now
    return now


@step
def a_hung_entry_point_is_caught_with_its_traceback():
    drop_in("ctpeer-bootstrap", watchdog_s=15)
    do(BIN / "ctpeer", "service", "install", "bootstrap", "--now")
    before = show("ctpeer-bootstrap")
    assert before["ActiveState"] == "active", before
    wait_until(lambda: "connected to" in show("ctpeer-bootstrap")["StatusText"], 10, "words")
    killed = p2pd_of(int(before["MainPID"]))
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: p2pd_of(int(before["MainPID"])) not in (None, killed), 30, "its p2pd is replaced"
    )
    wait_until(lambda: "connected to" in show("ctpeer-bootstrap")["StatusText"], 30, "it answers")
    assert show("ctpeer-bootstrap")["NRestarts"] == "0"
    os.kill(int(before["MainPID"]), signal.SIGSTOP)
    wait_until(lambda: show("ctpeer-bootstrap")["NRestarts"] == "1", 40, "the watchdog strikes")
    wait_until(lambda: show("ctpeer-bootstrap")["ActiveState"] == "active", 60, "ready again")
    lines = journal("ctpeer-bootstrap")
    assert "Fatal Python error: Aborted" in lines
    assert re.search(r'File ".*dht_bootstrap/main.py", line \d+ in main', lines)
    after = show("ctpeer-bootstrap")
    do(BIN / "ctpeer", "service", "uninstall", "bootstrap")
    return {"before": before["MainPID"], "after": after["MainPID"]}


@step
def uninstall_leaves_the_home():
    said = do(BIN / "ctpeer", "service", "uninstall")
    assert str(HOME) in said
    assert not Path("/etc/systemd/system/ctpeer.service").exists()
    assert (HOME / "identity.key").exists()
    assert "it is not installed" in do(BIN / "ctpeer", "service", "uninstall")
    code, _, _ = run(BIN / "ctpeer", "service", "status")
    assert code == 3
    return {"said": said}


@step
def one_user_runs_it_without_root_and_without_being_logged_in():
    if not (shutil.which("loginctl") and shutil.which("dbus-daemon")):
        return {"skipped": "there is no logind or no D-Bus on this machine"}
    if os.getpriority(os.PRIO_PROCESS, 1) > 0 or os.sched_getscheduler(1) != os.SCHED_OTHER:
        return {"skipped": "this test runs at a low priority, which no user's service may leave"}
    do("useradd", "--create-home", "volunteer")
    do("systemctl", "start", "dbus.service", "systemd-logind.service")
    do("loginctl", "enable-linger", "volunteer")
    user = pwd.getpwnam("volunteer")
    runtime = Path(f"/run/user/{user.pw_uid}")
    wait_until((runtime / "systemd" / "private").exists, 20, "the user's systemd")
    as_user = (
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"),
        *("env", f"HOME={user.pw_dir}", "PATH=/usr/bin:/bin"),
    )
    chosen = (
        "mkdir -p ~/.config/ctpeer; echo CTPEER_COMPUTE__THREADS=1 > ~/.config/ctpeer/ctpeer.env"
    )
    do(*as_user, "sh", "-c", chosen)
    do(*as_user, BIN / "ctpeer", "service", "install", "--user", "--now")
    found = json.loads(do(*as_user, BIN / "ctpeer", "service", "status", "--user", "--json"))
    assert found["active"], found
    assert found["enabled"], found
    assert found["home"] == f"{user.pw_dir}/.local/share/ctpeer"
    assert "reachable" in do(*as_user, BIN / "ctpeer", "status")
    do(*as_user, BIN / "ctpeer", "service", "uninstall", "--user")
    return found


def main():
    with REPORT.open("a", buffering=1) as report:
        for each in STEPS:
            started_s = time.monotonic()
            try:
                seen = each()
            except BaseException as error:
                report.write(json.dumps({"step": each.__name__, "failed": repr(error)}) + "\n")
                raise
            finally:
                Path("/out/journal.txt").write_text(do("journalctl", "--no-pager", "-o", "short"))
            line = {"step": each.__name__, "seconds": time.monotonic() - started_s, "seen": seen}
            report.write(json.dumps(line) + "\n")


main()
