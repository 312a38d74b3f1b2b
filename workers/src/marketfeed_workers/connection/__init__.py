"""Connections to the venue: sessions, rotation, reconnects, and the WebSocket transports."""
