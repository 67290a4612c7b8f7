"""Django's settings, derived from the one typed `Settings` object of this process."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

import environ

from everythingfaas import __version__
from everythingfaas.settings import Settings

FAAS = Settings.from_env(os.environ)
BASE_DIR = Path(__file__).resolve().parent.parent


def _secret_key(settings: Settings) -> str:
    """The key that signs sessions: the given one, else one made once and kept in the data folder."""
    if settings.secret_key:
        return settings.secret_key
    path = settings.data_dir / "secret_key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked, so that of processes that start together one wins and none reads half a key.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix="secret_key.") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text()


def _database(settings: Settings) -> dict[str, object]:
    if not settings.database_url:
        return {
            "ENGINE": "faas_project.sqlite",
            "NAME": settings.data_dir / "db.sqlite3",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    database: dict[str, Any] = environ.Env.db_url_config(settings.database_url)
    if database["ENGINE"] == "django.db.backends.sqlite3":
        return _database(Settings.from_env({})) | {"NAME": database["NAME"]}
    # A server that is gone without a word is noticed within seconds, and not within the two hours of the kernel.
    options: dict[str, Any] = {
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "tcp_user_timeout": 15_000,
    }
    # Our statements are short and use their indexes: compiling one costs more than running it, and a disk that
    # seeks is no longer what pages come from.
    options["options"] = "-c jit=off -c random_page_cost=1.1"
    options |= database.get("OPTIONS", {})
    return database | {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True, "OPTIONS": options}


DEBUG = False
SECRET_KEY = _secret_key(FAAS)
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *FAAS.own_hosts, *FAAS.allowed_hosts]
DATABASES = {"default": _database(FAAS)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular_sidecar",  # static files
    "api",
    "dispatcher",
    "worker",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "faas_project.pages.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "api.access.signals.remember_request",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "faas_project.urls"
ASGI_APPLICATION = "faas_project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates", Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
# One limit for the body of a request, ours; DRF 3.17.2 enforces Django's, whose default of 2.5 MB is below a
# legitimate function with a closure.
DATA_UPLOAD_MAX_MEMORY_SIZE = FAAS.max_body_bytes

REST_FRAMEWORK = {
    "DEFAULT_PARSER_CLASSES": ["api.codec.JsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["api.codec.JsonRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "api.codec.AlwaysJson",
    "DEFAULT_AUTHENTICATION_CLASSES": ["api.access.rest.ByCaller"],
    "DEFAULT_PERMISSION_CLASSES": ["api.access.rest.MayCall"],
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "api.errors.drf_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "EverythingFaaS",
    "DESCRIPTION": "Send a Python function, run it here, fetch its result.",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "PREPROCESSING_HOOKS": ["api.openapi.each_once"],
    "POSTPROCESSING_HOOKS": ["api.openapi.secured"],  # not its own: enumerations stay where they are used
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,
}

# Pages load what is ours and nothing else. The guard in front of it all looks at Host and Origin.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
LOGIN_URL = "/login/"
if FAAS.tls:  # whether a request came by https, `faas_project.proxy` has found out
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 30 * 86400

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "format": "{asctime} {levelname:<7} {name}: {message}",
            "style": "{",
        },
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": FAAS.log_level.upper()},
    "loggers": {
        # Django's own handlers write to the console and to admins; ours is the root's.
        "django": {"handlers": [], "propagate": True, "level": FAAS.log_level.upper()},
        # What a client did wrong is no event of ours; what we did wrong is logged as an error.
        "django.request": {"level": "ERROR"},
        "daphne": {"level": "WARNING"},
        "twisted": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
    },
}
