"""How Prometheus, Grafana and our own exporter are started: commands, variables, files.

None of them listens anywhere but where it is told to, asks for updates, or reports home.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from monitoring.children import Program
from monitoring.scrape import configuration, dialled
from peer.errors import ConfigurationError
from peer.run.directory import write_atomically

PACKAGE_PATH = Path(__file__).parent
PROMETHEUS_PATH = PACKAGE_PATH / "prometheus"
GRAFANA_PATH = PACKAGE_PATH / "grafana"

_PROMETHEUS_READY_S = 60.0
_GRAFANA_READY_S = 120.0
_MONITOR_READY_S = 120.0
_GRAFANA_HOMES = (Path("/usr/share/grafana"), Path("/opt/grafana"))


def exporter(
    run: str, home: Path | None, listen: str, folder: Path, flags: Sequence[str]
) -> Program:
    """Return the exporter of `run`, which also asks those that `home` knows."""
    met = list(flags)
    if home is not None and home.is_dir():
        met += ["--home", str(home)]
    return Program(
        name="ctpeer-monitor",
        command=[sys.executable, "-m", "monitoring", run, "--listen", listen, *met],
        variables={},
        log_path=folder / "monitor.log",
        ready_url=f"http://{dialled(listen)}/metrics",
        ready_s=_MONITOR_READY_S,
    )


def prometheus(
    folder: Path, listen: str, retention: str, *, monitor: str | None, run_id: str | None
) -> Program:
    """Write the configuration into `folder` and return Prometheus on it.

    Raises:
        ConfigurationError: It is not installed, or the folder cannot be written.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        raise ConfigurationError(
            "prometheus is not installed: `apt-get install prometheus` on Debian and Ubuntu, or "
            "unpack a release of prometheus.io and put it on the PATH"
        )
    template = yaml.safe_load((PROMETHEUS_PATH / "prometheus.yml").read_text())
    made = configuration(
        template,
        rules=str(PROMETHEUS_PATH / "rules" / "*.yml"),
        targets=str(folder / "targets" / "*.json"),
        monitor=None if monitor is None else dialled(monitor),
        run_id=run_id,
    )
    path = folder / "prometheus.yml"
    try:
        folder.joinpath("targets").mkdir(parents=True, exist_ok=True)
        write_atomically(path, yaml.safe_dump(made, sort_keys=False).encode())
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written: {error.strerror}; choose another place with --data"
        ) from error
    return Program(
        name="prometheus",
        command=[
            binary,
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--storage.tsdb.retention.time={retention}",
            f"--web.listen-address={listen}",
        ],
        variables={},
        log_path=folder / "prometheus.log",
        ready_url=f"http://{dialled(listen)}/-/ready",
        ready_s=_PROMETHEUS_READY_S,
    )


def grafana(folder: Path, listen: str, prometheus_listen: str) -> Program | None:
    """Return Grafana with datasource and dashboards provisioned; None where it is not installed.

    Everybody on this machine may look, and nobody needs or has a password.
    """
    one, other = shutil.which("grafana"), shutil.which("grafana-server")
    command = [one, "server"] if one is not None else [other] if other is not None else None
    if command is None:
        return None
    host, _, port = listen.rpartition(":")
    places = (*_GRAFANA_HOMES, Path(command[0] or "").resolve().parent.parent)
    home = next((place for place in places if (place / "conf" / "defaults.ini").exists()), None)
    if home is not None:
        command += ["--homepath", str(home)]
    variables = {
        "CTPEER_PROMETHEUS_URL": f"http://{dialled(prometheus_listen)}",
        "CTPEER_DASHBOARDS": str(GRAFANA_PATH / "dashboards"),
        "GF_PATHS_PROVISIONING": str(GRAFANA_PATH / "provisioning"),
        "GF_PATHS_DATA": str(folder / "grafana"),
        "GF_PATHS_LOGS": str(folder / "grafana" / "log"),
        "GF_PATHS_PLUGINS": str(folder / "grafana" / "plugins"),
        "GF_SERVER_HTTP_ADDR": host.strip("[]"),
        "GF_SERVER_HTTP_PORT": port,
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(
            GRAFANA_PATH / "dashboards" / "ctpeer-swarm.json"
        ),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    }
    return Program(
        name="grafana",
        command=[word for word in command if word is not None],
        variables=variables,
        log_path=folder / "grafana.log",
        ready_url=f"http://{dialled(listen)}/api/health",
        ready_s=_GRAFANA_READY_S,
    )
