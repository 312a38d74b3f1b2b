"""DATABASE_URL: a URL that libpq would parse differently than intended is rejected at once, and not shown."""

import os
import subprocess
import sys

import pytest

from marketfeed_consumers.settings import DatabaseSettings
from marketfeed_service import settings
from marketfeed_service.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("mysql://me:hunter2@db/x", "must begin with postgresql://", id="another database's"),
        pytest.param("postgresql://me:hunter2%zz@db/x", "write %25", id="a % in the password"),
        pytest.param("postgresql://me:100%hunter2@db/x", "write %25", id="a % and digits that are no code"),
        pytest.param("postgresql://me:p@hunter2@db/x", "more than one @", id="an @ in the password"),
        pytest.param("postgresql://me:p/hunter2@db/x", "a port that is not a number", id="a / in the password"),
        pytest.param("postgresql://me:123/hunter2@db/x", "more than one @", id="a / behind digits"),
        pytest.param("postgresql://me:hunter2@db:99999/x", "from 1 to 65535", id="a port that cannot be"),
        pytest.param("postgresql://me:hunter2@db:0/x", "from 1 to 65535", id="port 0"),
        pytest.param("postgresql://me:hunter2@a,b:5433,c:65536/x", "from 1 to 65535", id="one of several ports"),
        pytest.param("postgresql://me:hunter2@db/x?sslmode=on", "its value of sslmode", id="an sslmode that cannot be"),
        pytest.param("postgresql://me:hunter2@db/x?gssencmode=y", "its value of gssencmode", id="another option"),
        pytest.param(
            "postgresql://me:hunter2@a,b/x?sslmode=require&target_session_attrs=rw",
            "its value of target_session_attrs",
            id="an option of several hosts",
        ),
        pytest.param("postgresql://me:hunter2@db/x?keepalives=yes", "its value of keepalives", id="no number"),
        pytest.param(
            "postgresql://me:hunter2@db/x?sslmode=require&sslrootcert=system", "its value of one of", id="two at odds"
        ),
        pytest.param("postgresql://me:hunter2@db/x?pool=5", "only libpq options", id="another driver's option"),
    ],
)  # fmt: skip
def test_database_url_that_libpq_parses_differently_is_rejected_without_its_password(
    url: str, words: str
) -> None:
    """Regression: the password, or a part of it, was in the log as a parse error of libpq, or as the host."""
    with pytest.raises(SettingsError) as caught:
        settings.read(DatabaseSettings, {"DATABASE_URL": url})
    assert "DATABASE_URL=(hidden) cannot be used" in str(caught.value)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss%2F%25@db.example:5433/x?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgres://me@[::1]:5432/x",
        "postgresql://me@db:65535/x?sslmode=require&channel_binding=require&connect_timeout=5&keepalives_idle=10",
        "postgresql://me@/x?host=a,b&hostaddr=127.0.0.1,::1&port=1,2&load_balance_hosts=random&gssencmode=disable",
        "postgresql://me@db/x?sslmode=verify-full&sslrootcert=/not/there.pem&options=-c%20search_path%3Dx",
        "postgresql://me@a,b:5433,c:5434/x?target_session_attrs=read-write",
        "postgresql://postgres@/x?host=/run/postgresql",
        "postgresql://root@localhost:26257/defaultdb?sslmode=disable",
        "postgresql://",
    ],
)
def test_database_url_that_libpq_parses_as_intended_is_accepted(url: str) -> None:
    read = settings.read(DatabaseSettings, {"DATABASE_URL": url})
    assert read.database_url.get_secret_value() == url


AS_A_USER_WITHOUT_A_NAME = """
import os
from marketfeed_consumers.settings import check_database_url
os.setuid(65532)
check_database_url("postgresql://me:secret@db.example:5433/x?sslmode=verify-full&connect_timeout=5")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a name")
def test_database_url_is_accepted_in_a_container_whose_user_has_no_name() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", AS_A_USER_WITHOUT_A_NAME],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
