"""The ``marketfeed`` command: the whole pipeline on one machine, and looks at one that runs elsewhere."""
