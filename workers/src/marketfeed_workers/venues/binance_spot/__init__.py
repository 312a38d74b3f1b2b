"""API shared by Binance's spot venues: stream names, frames, commands, REST.

Source: binance-spot-api-docs, web-socket-streams.md and rest-api.md.
"""
