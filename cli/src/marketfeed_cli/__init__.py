"""Command ``marketfeed``: run the whole pipeline on one machine, or inspect a running one."""
