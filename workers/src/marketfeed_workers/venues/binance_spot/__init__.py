"""The dialect that Binance's spot venues share: stream names, frames, commands, REST.

Source: binance-spot-api-docs, web-socket-streams.md and rest-api.md.
"""
