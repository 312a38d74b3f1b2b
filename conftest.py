"""What the tests of every package have alike."""

from hypothesis import HealthCheck, settings

# A shared or busy machine is slow now and then, and that says nothing about the code: no test depends on timing.
settings.register_profile(
    "marketfeed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("marketfeed")
