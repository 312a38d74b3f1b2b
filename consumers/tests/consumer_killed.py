"""A consumer that kills itself at a failpoint: ``python consumer_killed.py POINT N``, the Nth time it reaches POINT."""

import os
import signal
import sys

from marketfeed_consumers import service
from marketfeed_consumers.settings import ConsumerSettings
from marketfeed_service import settings


def main() -> int:
    point, left = sys.argv[1], int(sys.argv[2])

    def at(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return service.run(settings.read(ConsumerSettings, os.environ), at)


if __name__ == "__main__":
    sys.exit(main())
