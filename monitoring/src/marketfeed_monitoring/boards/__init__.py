"""The four dashboards, one module each; their rows follow the pipeline."""

from typing import Final

from marketfeed_monitoring.boards.ingestion import INGESTION
from marketfeed_monitoring.boards.operator import OPERATOR
from marketfeed_monitoring.boards.overview import OVERVIEW
from marketfeed_monitoring.boards.persistence import PERSISTENCE
from marketfeed_monitoring.model import Board

BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, INGESTION, PERSISTENCE, OPERATOR)
