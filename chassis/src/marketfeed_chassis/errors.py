"""The errors that end a service, and the exit code of each.

ServiceError
├── SettingsError     exit 2: the user's settings; nothing has been opened yet
└── StartupError      exit 1: something outside (broker, database, venue) stayed out of reach or refused us
"""


class ServiceError(Exception):
    """Base: its text is what the user reads, in one line a problem."""

    exit_code = 1


class SettingsError(ServiceError):
    """Settings that cannot be used; each line names variable, value and what is allowed."""

    exit_code = 2


class StartupError(ServiceError):
    """A part that the service needs could not be reached, or refused it, within the deadline."""

    exit_code = 1
