"""The resource: its types, its CustomResourceDefinition, and the way from a stored object to a `Spec`."""

from marketfeed_operator.api.parse import parse
from marketfeed_operator.api.spec import Spec
from marketfeed_operator.api.status import Condition, Status

__all__ = ["Condition", "Spec", "Status", "parse"]
