"""A small project of Django in the process of the tests: its settings, its tasks, its pages.

Owns that Django is set up once, with a database of its own. Must not know what is tested.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

HOME = Path(tempfile.mkdtemp(prefix="dropr-django-"))
BACKEND = "dropr_django.backend.DroprBackend"


def set_up():
    """Have Django ready; safe twice."""
    import django
    from django.conf import settings

    if settings.configured:
        return
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    settings.configure(
        SECRET_KEY="of tests",
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
        ROOT_URLCONF="support.django_shop.urls",
        STATIC_URL="/static/",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            *(["django_tasks"] if django.VERSION < (6, 0) else []),
            "dropr_django",
            "support.django_shop",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": HOME / "db.sqlite3",
                "OPTIONS": {"timeout": 30},
            }
        },
        TASKS={
            "default": {
                "BACKEND": BACKEND,
                "QUEUES": ["default", "mails", "here"],
                "OPTIONS": {"CHANNELS": {"mails": "post/mails"}},
            },
            "bound": {
                "BACKEND": BACKEND,
                "QUEUES": ["default", "here"],
                "OPTIONS": {"TRANSACTIONAL": True},
            },
            "loose": {
                "BACKEND": BACKEND,
                "QUEUES": ["here"],
                "OPTIONS": {"ENQUEUE_ON_COMMIT": False},
            },
        },
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
