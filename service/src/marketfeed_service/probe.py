"""HTTP probe for container health checks: ``python -m marketfeed_service.probe [URL]``.

The images contain no curl. The response is printed, so that ``docker inspect`` shows why the service is not ready.
"""

import argparse
import http.client
import os
import sys
import urllib.parse
from collections.abc import Sequence
from typing import Final

DEFAULT_PORT: Final = "8000"
"""Default of `settings.ServiceSettings`, which is not imported: a probe runs every few seconds and must be cheap."""


def request(url: str, timeout_seconds: float) -> tuple[bool, str]:
    """Return whether the response of `url` has a status below 400, and its text or the error."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return False, f"{url!r} is not an http:// address"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")))
        answer = connection.getresponse()
        return answer.status < 400, answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{url}: {error or type(error).__name__}"
    finally:
        connection.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the probe; return 0 if it succeeds, else 1."""
    port = os.environ.get("METRICS_PORT", "").strip() or DEFAULT_PORT
    parser = argparse.ArgumentParser(prog="python -m marketfeed_service.probe", description=__doc__)
    parser.add_argument(
        "url",
        nargs="?",
        default=f"http://127.0.0.1:{port}/readyz",
        help="URL of the probe [readiness at METRICS_PORT]",
    )
    parser.add_argument("--timeout-seconds", type=float, default=3.0, help="[%(default)s]")
    options = parser.parse_args(arguments)
    healthy, text = request(options.url, options.timeout_seconds)
    print(text)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
