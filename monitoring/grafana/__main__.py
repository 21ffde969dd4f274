"""`python -m monitoring.grafana` writes the dashboards anew, after a change of their code."""

from monitoring.grafana.generate import DASHBOARDS_PATH, write

if __name__ == "__main__":
    write(DASHBOARDS_PATH)
