"""What holds for every test of this repository: none of them asserts a timing, not even by a default of hypothesis."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "no timings",
    parent=settings(),  # under CI hypothesis has a profile of its own
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("no timings")
