"""The Grafana dashboard, written in Python with Grafana's own typed library: ``python -m grafana`` writes its JSON."""
