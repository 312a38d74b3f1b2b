"""A Binance-compatible venue in one process: its WebSocket and REST protocol, its limits, and its faults.

The market behind it is either generated from a seed or the replay of a recording. Logic lives in plain modules
(market, history, limits, protocol, rest_api, frame_faults); server, connection, hub and driver do the I/O.
"""
