"""Rules of schedules in words."""

import pytest
from support.one_node import configure

from dropr_core.schedules.definitions import read_schedule
from dropr_core.schedules.wording import in_words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"cron": "0 3 * * *"}, "every day at 03:00"),
        ({"cron": "30 4 * * mon-fri"}, "Monday to Friday at 04:30"),
        ({"cron": "5 6 * * 0"}, "every Sunday at 06:05"),
        ({"cron": "0 0 1 * *"}, "on day 1 of every month at 00:00"),
        ({"cron": "@daily"}, "every day at 00:00"),
        ({"cron": "@hourly"}, "at every full hour"),
        ({"cron": "7 * * * *"}, "at minute 7 of every hour"),
        ({"cron": "*/5 * * * *"}, "every 5 minutes"),
        ({"cron": "*/5 * * * mon-fri"}, "every 5 minutes, Monday to Friday"),
        ({"cron": "0 */6 * * *"}, "every 6 hours"),
        ({"cron": "* * * * *"}, "every minute"),
        ({"cron": "*/7 * * * *"}, ""),  # the last step of each hour is shorter
        ({"cron": "0 3 13 * fri"}, ""),
        ({"cron": "0 3,5 * * *"}, ""),
        ({"cron": "0 3 * jan *"}, ""),
        ({"cron": "0 3 * * mon,fri"}, ""),
        ({"cron": "0 3 * * fri#2"}, ""),
        ({"every": "1h"}, "every hour"),
        ({"every": "90s"}, "every 90 seconds"),
        ({"every": "2d"}, "every 2 days"),
        ({"at": "2026-12-24T18:00:00+01:00"}, "once, on 2026-12-24 at 18:00 (UTC+01:00)"),
    ],
)
def test_common_rules_have_words_and_others_none(tmp_path, rule, words):
    """Nothing is said that is only half true."""
    config = read_schedule("a", {**rule, "channel": "jobs"}, configure(tmp_path))
    assert in_words(config) == words
