"""Grafana's dashboards, made here and committed as JSON; `python -m monitoring.grafana` makes them.

What stands in a panel is code of ours, checked against Grafana's own schema. Nothing here runs
where dashboards are looked at: `ctpeer-monitor stack` gives Grafana the JSON.
"""
