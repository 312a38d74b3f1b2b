"""API types of MarketFeed, the CustomResourceDefinition generated from them, and the parser of stored
objects.
"""

from marketfeed_operator.api.parse import parse
from marketfeed_operator.api.spec import Spec
from marketfeed_operator.api.status import Condition, Status

__all__ = ["Condition", "Spec", "Status", "parse"]
