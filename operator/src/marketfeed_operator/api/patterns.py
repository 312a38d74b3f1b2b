"""Patterns with an error message: the API server reports a pattern verbatim, and a rule by its message."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class PatternRule:
    """Annotation of a string that must match a regular expression.

    Attributes:
        pattern: the expression, from ^ to $, without double quotes.
        message: error message: what is allowed.
    """

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._matching, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        rule = {"rule": f'self.matches(r"{self.pattern}")', "message": self.message}
        return {**handler(schema), "x-kubernetes-validations": [rule]}

    def _matching(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.message)
        return text
