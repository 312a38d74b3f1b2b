"""The errors that end a service, and their exit codes.

ServiceError
├── SettingsError     exit 2: invalid settings; nothing has been opened yet
└── StartupError      exit 1: a dependency (broker, database, venue) was unreachable or rejected the connection
"""


class ServiceError(Exception):
    """Base class; the text is shown to the user, one line for each problem."""

    exit_code = 1


class SettingsError(ServiceError):
    """Invalid settings; each line has the variable, its value and the allowed values."""

    exit_code = 2


class StartupError(ServiceError):
    """A dependency was unreachable, or rejected the connection, within the deadline."""

    exit_code = 1
