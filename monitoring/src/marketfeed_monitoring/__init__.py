"""Dashboards and alerts as code: what `charts/marketfeed/files` holds is written here."""
