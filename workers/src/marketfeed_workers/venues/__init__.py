"""Venues: what differs between exchanges, and nothing else.

`venue` is the seam, `registry` finds a venue by name, each other folder is a venue or a dialect that venues share.
Outside this folder no code names a venue.
"""
