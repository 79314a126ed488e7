"""Every setting of the control plane, read from the environment here and nowhere else (docs/settings.md)."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from hearth.local.home import Home
from hearth.sign_in import *  # noqa: F403
from worker.wire import networks

BASE_DIR = Path(__file__).resolve().parent.parent
FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
env = environ.Env()
HOME = Home.from_environment()  # HEARTH_HOME, by default var/

# Where things are. Without DATABASE_URL the instance keeps its own PostgreSQL, S3 and keys under HEARTH_HOME.
EMBEDDED = not env.str("DATABASE_URL", default="")
HOST = env.str("HOST", default="127.0.0.1")
PORT = env.int("PORT", default=8000)
GIVEN_URL = env.str("HEARTH_URL", default="").rstrip("/")
HEARTH_URL = GIVEN_URL or HOME.run().get("base_url") or f"http://{HOST}:{PORT}"

# What `make up` starts (hearth/local).
WORKERS = env.int("WORKERS", default=1)
COMFYUI_URL = env.str("COMFYUI_URL", default="")  # the local workers' ComfyUI, in place of the stand-in
LOG = env.bool("LOG", default=False)  # shows the parts' logs on the console


def secret(name: str) -> str:
    """A secret key: from the environment, else, for an embedded instance only, generated into HEARTH_HOME."""
    given: str = env.str(name, default="")
    if not given and not EMBEDDED:
        raise ImproperlyConfigured(f"{name} is not set. With DATABASE_URL set, Hearth generates no keys: set it.")
    return given or HOME.secret(name)


def seal_keys(text: str) -> list[str]:
    """The Fernet keys in a comma-separated list. An error names a key by its place, never by its text."""
    keys = [key.strip() for key in text.split(",") if key.strip()]
    if wrong := [number for number, key in enumerate(keys, 1) if not FERNET_KEY.fullmatch(key)]:
        raise ImproperlyConfigured(
            f"HEARTH_SEAL_KEYS: key {wrong[0]} of {len(keys)} is no Fernet key (43 letters, digits, - or _, and a =). "
            "docs/operations.md has the command that makes one."
        )
    return keys


def rate_limits(usual: dict[str, int]) -> dict[str, int]:
    """The usual numbers, but for those that the environment gives as `name=number,…`."""
    try:
        given = {name: int(number) for name, number in env.dict("HEARTH_RATE_LIMITS", default={}).items()}
    except ValueError as error:
        raise ImproperlyConfigured(f"HEARTH_RATE_LIMITS must be name=number, comma separated: {error}.") from error
    if wrong := [name for name, number in given.items() if name not in usual or number < 0]:
        raise ImproperlyConfigured(
            f"HEARTH_RATE_LIMITS: {wrong[0]!r} must be one of {', '.join(usual)}, and 0 or more."
        )
    return usual | given


SECRET_KEY = secret("HEARTH_SECRET_KEY")
SECRET_KEY_FALLBACKS = env.list("HEARTH_SECRET_KEY_FALLBACKS", default=[])
SEAL_KEYS = seal_keys(secret("HEARTH_SEAL_KEYS"))  # the first seals, all unseal

DEBUG = env.bool("HEARTH_DEBUG", default=False)
_own_hosts = [urlsplit(HEARTH_URL).hostname or "*", "127.0.0.1", "localhost", "[::1]"]
ALLOWED_HOSTS = env.list("HEARTH_ALLOWED_HOSTS", default=_own_hosts)  # of the admin
CSRF_TRUSTED_ORIGINS = [HEARTH_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HEARTH_URL.startswith("https://")
SECURE_HSTS_SECONDS = env.int("HEARTH_HSTS_DAYS", default=30) * 86400 if SESSION_COOKIE_SECURE else 0
# The proxy redirects to https; whether other hosts of the domain have it, and preloading, are not Hearth's to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W008", "security.W021"]

DATABASE_URL = HOME.database_url() if EMBEDDED else env.str("DATABASE_URL")
DATABASE_DIRECT_URL = env.str("DATABASE_DIRECT_URL", default=DATABASE_URL)  # past PgBouncer: LISTEN, advisory locks
DATABASES = {
    "default": {
        **env.db_url_config(DATABASE_URL),
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": DATABASE_DIRECT_URL != DATABASE_URL,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).update(
    {"server_side_binding": True, "prepare_threshold": 5 if DATABASE_DIRECT_URL == DATABASE_URL else None}
)

# The operator's S3: the buckets of tenants that have none of their own are prefixes in it.
EMBEDDED_S3 = not env.str("HEARTH_S3_ENDPOINT_URL", default="")
_s3 = HOME.s3() if EMBEDDED_S3 else {}
S3_ENDPOINT_URL = env.str("HEARTH_S3_ENDPOINT_URL", default=_s3.get("endpoint_url", ""))
S3_PUBLIC_URL = env.str("HEARTH_S3_PUBLIC_URL", default=S3_ENDPOINT_URL)  # what URLs given to clients and workers name
S3_REGION = env.str("HEARTH_S3_REGION", default="us-east-1")
S3_BUCKET = env.str("HEARTH_S3_BUCKET", default="hearth")
S3_ACCESS_KEY_ID = env.str("HEARTH_S3_ACCESS_KEY_ID", default=_s3.get("access_key_id", ""))
S3_SECRET_ACCESS_KEY = env.str("HEARTH_S3_SECRET_ACCESS_KEY", default=_s3.get("secret_access_key", ""))
S3_ADDRESSING_STYLE = env.str("HEARTH_S3_ADDRESSING_STYLE", default="path")
UPLOAD_PART_BYTES = max(5, env.int("HEARTH_UPLOAD_PART_MIB", default=16)) * 1024**2  # S3 takes none of less than 5 MiB
UPLOAD_URL_LIFETIME = timedelta(minutes=15)
INPUT_URL_LIFETIME = timedelta(hours=1)  # from a hand-over on
REQUEST_BUCKET_URL_LIFETIME = timedelta(days=7)  # the longest that SigV4 allows
OUTPUT_URL_LIFETIME = timedelta(hours=env.int("HEARTH_OUTPUT_URL_HOURS", default=24))
if not timedelta(hours=1) <= OUTPUT_URL_LIFETIME <= REQUEST_BUCKET_URL_LIFETIME:
    raise ImproperlyConfigured("HEARTH_OUTPUT_URL_HOURS must be 1 to 168: S3 signs for 7 days at most.")

# Rules of the queue (rules.md). Seconds unless the name says otherwise.
LEASE_S = env.int("HEARTH_LEASE_S", default=25)
POLL_HOLD_S = env.int("HEARTH_POLL_HOLD_S", default=10)
START_S = env.int("HEARTH_START_S", default=600)  # an idle own worker that holds a job must start it within this
RUNPOD_URL = env.str("HEARTH_RUNPOD_URL", default="https://api.runpod.ai/v2").rstrip("/")  # or another Hearth's /v2
RUNPOD_API_KEY = env.str("RUNPOD_API_KEY", default="")  # for manage.py add_runpod_endpoint, which seals it
MAX_ATTEMPTS = env.int("HEARTH_MAX_ATTEMPTS", default=3)
MAX_FREE_LOSSES = env.int("HEARTH_MAX_FREE_LOSSES", default=3)
CURRENCY = env.str("HEARTH_CURRENCY", default="")  # of the prices, as it is shown
BILL_LOST = env.bool("HEARTH_BILL_LOST", default=False)  # GPU time of attempts that were lost or handed back
SWEEP_S = env.float("HEARTH_SWEEP_S", default=1.0)
RECHECK_S = 2.0  # waiters re-read what they wait for this often, whatever NOTIFY said
RUN_MAX_BYTES = 10 * 1024**2
RUNSYNC_MAX_BYTES = 20 * 1024**2
UPLOAD_MAX_BYTES = 32 * 1024**2  # of a file that comes through web; larger ones go to S3 themselves
ASSET_MAX_BYTES = env.int("HEARTH_ASSET_MAX_BYTES", default=1024**3)
OUTPUT_MAX_BYTES = env.int("HEARTH_OUTPUT_MAX_BYTES", default=100 * 1024**2)
# Requests of a tenant at an endpoint in 10 s, RunPod's numbers; 0: any. status-sync and stream count as status.
# `api`: to /api/v1, which has no endpoint.
_rates = {"run": 1000, "runsync": 2000, "status": 2000, "cancel": 100, "retry": 100}
_rates |= {"purge-queue": 2, "requests": 10, "health": 2000, "api": 1000}
RATE_LIMITS = rate_limits(_rates)
REQUEST_BUCKET_KEEP = timedelta(hours=24)
URL_ALLOW = networks(env.list("HEARTH_URL_ALLOW", default=[]))  # networks that tenants' URLs may reach although private

# How long things are kept, in days; 0: for ever. Tenants may have days of their own.
PAYLOAD_DAYS = env.int("HEARTH_PAYLOAD_DAYS", default=0)
ASSET_DAYS = env.int("HEARTH_ASSET_DAYS", default=0)
EVENT_DAYS = env.int("HEARTH_EVENT_DAYS", default=0)
AUDIT_DAYS = env.int("HEARTH_AUDIT_DAYS", default=730)  # lines of the audit trail
GONE_DAYS = env.int("HEARTH_GONE_DAYS", default=90)  # how long who asks for what was deleted is told since when

# Webhooks to tenants, and the mails about them.
DELIVERIES_AT_ONCE = env.int("HEARTH_DELIVERIES_AT_ONCE", default=200)
DELIVERY_DAYS = env.int("HEARTH_DELIVERY_DAYS", default=30)
WEBHOOK_DISABLE_DAYS = env.int("HEARTH_WEBHOOK_DISABLE_DAYS", default=5)
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
EMAIL_TIMEOUT = 10
ADMINS = [(address, address) for address in env.list("HEARTH_ADMINS", default=[])]
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.str("HEARTH_MAIL_FROM", default=f"hearth@{urlsplit(HEARTH_URL).hostname}")

# The web process.
WEB_THREADS = env.int("HEARTH_WEB_THREADS", default=8)
WEB_GRACE_S = env.int("HEARTH_WEB_GRACE_S", default=15)

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # without its site: accounts/site.py is ours
    "unfold.contrib.filters",
    "accounts.apps.AdminConfig",  # the pages are loaded by hearth/urls.py, in web alone
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "django_q",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "storage",
    "jobs",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "accounts.audit.Acting",
]
ROOT_URLCONF = "hearth.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "hearth" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["jobs.api.access.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["jobs.api.access.Json"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "jobs.api.access.AlwaysJson",
    "EXCEPTION_HANDLER": "jobs.api.errors.answer",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Hearth",
    "VERSION": "1",
    "DESCRIPTION": "RunPod's serverless API under /v2; what it has not under /api/v1: history, files, keys, buckets, …",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": ["jobs.api.schema.with_wire", "jobs.api.examples.with_examples"],
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _page(title: str, icon: str, model: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{model}_changelist")}


FAVICON = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 100'>"
    "<text y='.9em' font-size='90'>🔥</text></svg>"
)
UNFOLD = {
    "SITE_TITLE": "Hearth",
    "SITE_HEADER": "Hearth",
    "SITE_SUBHEADER": "Times are UTC",
    "SITE_SYMBOL": "fireplace",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": FAVICON}],
    "SITE_URL": None,  # there is no site beside the admin
    "DASHBOARD_CALLBACK": "jobs.admin.home.dashboard",
    "ACCOUNT": {
        "navigation": [
            {"title": "Change password", "link": reverse_lazy("admin:password_change")},
            {"title": "Second factor", "link": reverse_lazy("admin:second_factor")},
        ]
    },
    "SIDEBAR": {
        "navigation": [
            {
                "title": "Jobs",
                "items": [
                    _page("Jobs", "list_alt", "jobs_job"),
                    _page("Endpoints", "hub", "jobs_endpoint"),
                    _page("Grants", "handshake", "jobs_grant"),
                    _page("Stored workflows", "account_tree", "jobs_workflow"),
                    _page("Workflow versions", "history", "jobs_workflowversion"),
                    _page("Usage", "bar_chart", "jobs_usage"),
                    _page("Workers", "memory", "jobs_worker"),
                    _page("Worker keys", "vpn_key", "jobs_workerkey"),
                    _page("Node catalogues", "schema", "jobs_catalogue"),
                ],
            },
            {
                "title": "Accounts",
                "items": [
                    _page("Tenants", "apartment", "accounts_tenant"),
                    _page("API keys", "key", "accounts_apikey"),
                    _page("Members", "badge", "accounts_member"),
                    _page("Users", "person", "accounts_user"),
                    _page("Audit trail", "history", "accounts_change"),
                    _page("Failed logins", "lock_person", "axes_accessattempt"),
                ],
            },
            {
                "title": "Webhooks",
                "items": [
                    _page("Webhooks", "webhook", "jobs_webhook"),
                    _page("Webhook secrets", "lock", "jobs_webhooksecret"),
                    _page("Deliveries", "outbox", "jobs_delivery"),
                ],
            },
            {
                "title": "Storage",
                "items": [
                    _page("Buckets", "cloud", "storage_bucket"),
                    _page("Assets", "image", "storage_asset"),
                    _page("Blobs", "database", "storage_blob"),
                    _page("Deletions", "delete_sweep", "jobs_deletion"),
                ],
            },
            {
                "title": "Tasks",
                "items": [
                    _page("Queued", "pending_actions", "django_q_ormq"),
                    _page("Failed", "error", "django_q_failure"),
                    _page("Done", "task_alt", "django_q_success"),
                ],
            },
        ]
    },
}

USE_TZ = True
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = "hearth.formats"
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True  # no collectstatic step: the admin's files come from the installed packages

# Two clusters: fast (dispatch) and slow (storage). Q_CLUSTER_NAME picks one; tasks name theirs.
_q = {"workers": 1, "timeout": 300, "retry": 360, "ack_failures": True, "max_attempts": 1, "recycle": 500}
Q_CLUSTER = {
    "name": "hearth",
    "broker_class": "hearth.broker.NotifyBroker",
    "orm": "default",
    "scheduler": False,  # it looks every 30 s: sweep does what is due (rules.md 16)
    "save_limit": 250,
    "guard_cycle": 1,
    "label": "Tasks",
    **_q,
    "ALT_CLUSTERS": {"fast": _q, "slow": _q},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "httpx": {"level": "WARNING"},  # it has a line for each request
        **{name: {"level": "INFO"} for name in ("boto3", "botocore", "urllib3")},  # below that they tell signatures
    },
    "root": {"handlers": ["stderr"], "level": env.str("HEARTH_LOG_LEVEL", default="INFO")},
}
