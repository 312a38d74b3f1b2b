"""Venues: everything that differs between exchanges.

`venue` is the interface and `registry` finds a venue by name. Each folder is a venue, or an API that venues share. No
code outside this package names a venue.
"""
