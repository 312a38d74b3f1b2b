"""Settings: error texts for missing and invalid variables; no secret is ever shown."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import Field, SecretStr, model_validator

from marketfeed_service.errors import SettingsError
from marketfeed_service.settings import (
    CommaSeparated,
    ServiceSettings,
    Settings,
    describe,
    is_secret,
    old_names,
    parse_time_us,
    parser,
    read,
)

PASSWORD = "s3cret-Grüße"


class Example(ServiceSettings):
    """Settings with one field of each type."""

    renamed: ClassVar[Mapping[str, str]] = {"DELAY_SECONDS": "PAUSE_SECONDS"}

    broker: str = Field(pattern=r"^\S+:\d+$", description="host:port")
    database_url: SecretStr = Field(min_length=10, description="postgresql://…")
    password: SecretStr = Field(SecretStr("a-default-secret"), description="of the user")
    symbols: CommaSeparated = Field(("BTCUSDT", "ETHUSDT"), description="symbols, comma separated")
    topics: CommaSeparated = Field(default_factory=tuple, description="topics, comma separated")
    validate_on_start: bool = Field(True, description="true or false")
    acks: Literal["all", "1"] = Field("all", description="all or 1")
    pause_seconds: float = Field(1.5, gt=0, description="a pause; 100% of it is waited for")

    @model_validator(mode="after")
    def _two_fields(self) -> Self:
        if self.validate_on_start and self.acks == "1":
            raise ValueError("ACKS='1' and VALIDATE_ON_START='true' exclude each other")
        return self


GOOD = {"BROKER": "localhost:9092", "DATABASE_URL": f"postgresql://u:{PASSWORD}@h/d"}


def problems(**environment: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(Example, {**GOOD, **environment})
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is None, (
        "pydantic's own text would repeat the problem, and may hold the value"
    )
    return str(caught.value).splitlines()


def test_settings_are_read_from_variables_in_capitals_and_typed() -> None:
    settings = read(
        Example,
        {
            **GOOD,
            "METRICS_PORT": " 0 ",
            "SYMBOLS": "BTCUSDT,, ETHUSDT ,",
            "VALIDATE_ON_START": "false",
            "PAUSE_SECONDS": "0.25",
            "broker": "lower:1",
            "PATH": "/bin",
        },
    )
    assert settings.broker == "localhost:9092"
    assert settings.metrics_port == 0
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.validate_on_start is False
    assert settings.pause_seconds == 0.25
    assert settings.database_url.get_secret_value() == GOOD["DATABASE_URL"]


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_settings_treat_an_empty_variable_as_not_set(empty: str) -> None:
    assert read(Example, {**GOOD, "METRICS_PORT": empty}).metrics_port == 8000
    assert problems(BROKER=empty) == ["BROKER is not set: host:port"]


def test_settings_renamed_are_read_under_the_old_name_unless_the_new_one_is_set() -> None:
    old = {**GOOD, "DELAY_SECONDS": "2"}
    assert (read(Example, old).pause_seconds, old_names(Example, old)) == (
        2,
        {"DELAY_SECONDS": "PAUSE_SECONDS"},
    )
    both = {**old, "PAUSE_SECONDS": "3"}
    assert (read(Example, both).pause_seconds, old_names(Example, both)) == (3, {})
    assert problems(DELAY_SECONDS="-2")[0].startswith("DELAY_SECONDS (renamed PAUSE_SECONDS)='-2' ")


def test_settings_error_has_one_line_for_each_problem() -> None:
    with pytest.raises(SettingsError) as caught:
        read(Example, {"METRICS_PORT": "70000"})
    lines = str(caught.value).splitlines()
    assert [line.split("=")[0].split(" ")[0] for line in lines] == ["METRICS_PORT", "BROKER", "DATABASE_URL"]


WRONG = [
    ("METRICS_PORT", "eighty", "valid integer"),
    ("METRICS_PORT", "70000", "less than or equal to 65535"),
    ("METRICS_PORT", "-1", "greater than or equal to 0"),
    ("BROKER", "localhost", "Allowed: host:port"),
    ("LOG_LEVEL", "loud", "Allowed: DEBUG, INFO, WARNING or ERROR"),
    ("VALIDATE_ON_START", "perhaps", "Allowed: true or false"),
    ("ACKS", "2", "'all' or '1'"),
    ("PAUSE_SECONDS", "nan", "finite number"),
    ("PAUSE_SECONDS", "inf", "finite number"),
    ("PAUSE_SECONDS", "0", "greater than 0"),
    ("START_DEADLINE_SECONDS", "nan", "finite number"),
    ("DRAIN_DEADLINE_SECONDS", "121", "less than or equal to 120"),
]


@pytest.mark.parametrize(("variable", "value", "says"), WRONG)
def test_settings_error_has_the_value_and_the_allowed_values(variable: str, value: str, says: str) -> None:
    (line,) = problems(**{variable: value})
    assert line.startswith(f"{variable}={value!r} cannot be used")
    assert "Allowed: " in line
    assert says in line


def test_settings_error_explains_a_pattern_without_a_regular_expression() -> None:
    assert problems(BROKER="localhost") == ["BROKER='localhost' cannot be used. Allowed: host:port"]


def test_settings_error_of_a_rule_over_two_variables_is_its_text() -> None:
    assert problems(ACKS="1") == ["ACKS='1' and VALIDATE_ON_START='true' exclude each other"]


def test_settings_error_contains_no_secret() -> None:
    assert problems(DATABASE_URL="s3cret") == [
        "DATABASE_URL=(hidden) cannot be used: Value should have at least 10 items after validation, not 6."
        " Allowed: postgresql://…"
    ]


def test_settings_text_contains_no_secret() -> None:
    settings = read(Example, GOOD)
    for text in (repr(settings), str(settings), f"{settings}", settings.model_dump_json()):
        assert PASSWORD not in text
        assert "a-default-secret" not in text


def test_settings_are_immutable() -> None:
    settings = read(Example, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        settings.broker = "other:1"


@given(st.lists(st.text(st.characters(exclude_characters=","), min_size=1), max_size=5))
def test_settings_list_has_no_spaces_and_no_empty_parts(parts: list[str]) -> None:
    class One(Settings):
        names: CommaSeparated = ()

    read_back = read(One, {"NAMES": " , ".join(parts)}).names
    assert read_back == tuple(part.strip() for part in parts if part.strip())


def test_settings_help_lists_each_variable_with_default_and_description_but_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = parser("example", "Does nothing.", Example).format_help()
    assert "a-default-secret" not in text
    for name, default, description in describe(Example):
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        assert description.split()[0] in line
        assert default in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "100% of it" in text


def test_settings_help_shows_defaults_in_their_input_format() -> None:
    defaults = {name: default for name, default, _ in describe(Example)}
    assert defaults["BROKER"] == "(required)"
    assert defaults["SYMBOLS"] == "BTCUSDT,ETHUSDT"
    assert defaults["TOPICS"] == ""
    assert defaults["VALIDATE_ON_START"] == "true"
    assert defaults["PAUSE_SECONDS"] == "1.5"
    assert defaults["PASSWORD"] == ""


def test_settings_accept_the_defaults_shown_in_help() -> None:
    shown = {name: default for name, default, _ in describe(Example) if default not in ("", "(required)")}
    assert read(Example, {**GOOD, **shown}) == read(Example, GOOD)


def test_settings_secrets_are_detected_by_type() -> None:
    class Maybe(Settings):
        token: SecretStr | None = None

    assert is_secret(Maybe.model_fields["token"])
    assert is_secret(Example.model_fields["database_url"])
    assert not is_secret(Example.model_fields["broker"])


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-08-09T00:00:00.001692+00:00", 1_723_161_600_001_692),
        ("2024-08-09T02:00:00+02:00", 1_723_161_600_000_000),
        ("2024-08-09T00:00:00", 1_723_161_600_000_000),
        ("1969-12-31T23:59:59.999999", -1),
        ("2024-08-09", 1_723_161_600_000_000),
    ],
)
def test_setting_time_is_utc_by_default(text: str, microseconds: int) -> None:
    assert parse_time_us(text) == microseconds
