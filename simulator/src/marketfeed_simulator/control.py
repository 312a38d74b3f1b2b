"""Control endpoints for tests and tools: ledger, connections and faults. No venue has them."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from marketfeed_simulator import faults
from marketfeed_simulator.connection import WebSocketServer
from marketfeed_simulator.fault_injector import FaultInjector


class Control:
    """Request handlers of /control/…"""

    def __init__(
        self, ledger: Callable[[], Mapping[str, Any]], sockets: WebSocketServer, desk: FaultInjector
    ) -> None:
        self._ledger = ledger
        self._sockets = sockets
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/control/ledger", self.ledger),
            web.get("/control/connections", self.connections),
            web.get("/control/faults", self.list_faults),
            web.post("/control/faults", self.set_faults),
            web.delete("/control/faults", self.clear_faults),
            web.delete("/control/faults/{number:[0-9]+}", self.remove_fault),
        ]

    async def ledger(self, _: web.Request) -> web.Response:
        """Handle GET /control/ledger: what the market produced, what was delivered, whether it is finished."""
        return _json(self._ledger())

    async def connections(self, _: web.Request) -> web.Response:
        """Handle GET /control/connections: the open connections."""
        return _json(
            [
                {
                    "id": connection.number,
                    "address": connection.address,
                    "streams": len(connection.session.streams),
                    "stream_names": sorted(connection.session.streams),
                    "combined": connection.session.combined,
                    "receiving": connection.outlet.receiving,
                    "frames": connection.outlet.frames,
                    "buffered_bytes": connection.transport.get_write_buffer_size(),
                }
                for connection in self._sockets.connections.values()
            ]
        )

    async def list_faults(self, _: web.Request) -> web.Response:
        """Handle GET /control/faults: the faults that are set, with state and number of hits."""
        return _json([entry.as_fields() for entry in self._desk.entries.values()])

    async def set_faults(self, request: web.Request) -> web.Response:
        """Handle POST /control/faults: set the fault in the body and return it with its id."""
        try:
            entry = self._desk.set(faults.parse(await request.read()))
        except (ValueError, msgspec.MsgspecError) as error:
            return _json({"error": str(error)}, 400)
        return _json(entry.as_fields())

    async def clear_faults(self, _: web.Request) -> web.Response:
        """Handle DELETE /control/faults: remove every fault."""
        return _json({"removed": self._desk.clear()})

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Handle DELETE /control/faults/<id>: remove one fault."""
        number = int(request.match_info["number"])
        try:
            return _json(self._desk.remove(number).as_fields())
        except KeyError:
            return _json({"error": f"there is no fault {number}"}, 404)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
