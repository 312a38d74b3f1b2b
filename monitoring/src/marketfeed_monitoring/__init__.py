"""Dashboards and alerts as code, the source of `charts/marketfeed/files`."""
