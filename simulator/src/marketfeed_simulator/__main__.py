"""The command `marketfeed-simulator`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop

from marketfeed_service import logs, process
from marketfeed_simulator.options import parser, plan_of
from marketfeed_simulator.server import Simulator

log = logs.get(__name__)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(process.exit_code_of(lambda: run(sys.argv[1:])))


def run(arguments: Sequence[str]) -> int:
    """Run the simulator with `arguments` until a signal or, with --exit-when-finished, until the market ends.

    Raises:
        SettingsError: an argument, a recording or a scenario cannot be used.
        StartupError: the port cannot be bound.
    """
    options = parser().parse_args(arguments)
    logs.configure(options.log_level, options.log_format)
    return uvloop.run(_serve(options))


async def _serve(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def request_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    process.on_stop_signal(request_stop)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(
            Simulator(plan_of(options), host=options.host, port=options.port)
        )
        simulator.write_port(options.port_file)
        print(
            f"listening on ws://{options.host}:{simulator.port} and http://{options.host}:{simulator.port}",
            flush=True,
        )
        stopping = asyncio.create_task(stop.wait(), name="stop")
        ended = asyncio.create_task(simulator.market_ended(), name="market ended")
        await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()  # raises the error of a recording that cannot be read any further
            if not options.exit_when_finished:
                await stopping
        for task in (stopping, ended):
            task.cancel()
        log.info("stopping")
    return 0


if __name__ == "__main__":
    main()
