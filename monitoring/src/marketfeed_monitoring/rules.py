"""The alerts as a Prometheus rules file: plain YAML, for a `rule_files` entry or the body of a PrometheusRule."""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Final

import yaml

from marketfeed_monitoring import config
from marketfeed_monitoring.alerts import ALERTS, Alert

FILE_NAME: Final = "marketfeed.yaml"
_HEAD: Final = """\
# Written by `make generate` from monitoring/src/marketfeed_monitoring/alerts.py and config.py; do not edit.
# A rules file for Prometheus as it is; the chart puts the same groups into a PrometheusRule.
groups:
"""


def runbook(alert: Alert) -> str:
    """Path of the alert's runbook page."""
    return f"{config.RUNBOOKS}/{alert.name}.md"


def rule(alert: Alert) -> dict[str, object]:
    """The rule of an alert as Prometheus reads it."""
    return {
        "alert": alert.name,
        "expr": _Block(f"{alert.expr.strip()}\n") if "\n" in alert.expr.strip() else alert.expr,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": runbook(alert),
        },
    }


def render() -> str:
    """The text of the rules file; the reason of each alert stands above it."""
    return _HEAD + "".join(_groups())


def _groups() -> Iterator[str]:
    for group, alerts in groupby(ALERTS, key=lambda alert: alert.group):
        yield f"  - name: marketfeed-{group}\n    rules:\n"
        for alert in alerts:
            yield textwrap.indent(textwrap.fill(alert.reason, 100), "      # ") + "\n"
            yield textwrap.indent(
                yaml.dump([rule(alert)], Dumper=_Dumper, sort_keys=False, width=100), "      "
            )


class _Block(str):
    """Text of several lines, to be written as they are."""


class _Dumper(yaml.SafeDumper):
    """Writes blocks as blocks."""


def _write_block(dumper: yaml.SafeDumper, text: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


_Dumper.add_representer(_Block, _write_block)
