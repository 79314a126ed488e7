"""Settings of signing in to the admin; hearth/settings.py takes them all."""

from datetime import timedelta

import environ

env = environ.Env()

# django-axes: whoever fails so many times is refused for a while, by username and address. The address is the
# connection's; behind a proxy uvicorn has put the client's there, if FORWARDED_ALLOW_IPS names the proxy.
AXES_FAILURE_LIMIT = env.int("HEARTH_LOGIN_TRIES", default=5)
AXES_COOLOFF_TIME = timedelta(minutes=env.int("HEARTH_LOGIN_LOCK_MINUTES", default=15))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_CALLABLE = "accounts.site.locked_out"
AXES_CLIENT_IP_CALLABLE = "accounts.access.address_of"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else whoever goes on trying keeps the user out for ever
AXES_DISABLE_ACCESS_LOG = True  # users have their last login
AXES_ENABLE_ADMIN = False  # accounts/admin/users.py has the page
AXES_SENSITIVE_PARAMETERS = ["password", "code", "csrfmiddlewaretoken", "next"]
AXES_VERBOSE = False

LOGIN_REDIRECT_URL = "/admin/"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]

SECOND_FACTOR_FOR_STAFF = env.bool("HEARTH_SECOND_FACTOR_FOR_STAFF", default=False)

SESSION_COOKIE_AGE = env.int("HEARTH_SESSION_IDLE_HOURS", default=12) * 3600  # since it was used last
SESSION_LIFE_S = env.int("HEARTH_SESSION_DAYS", default=7) * 86400  # since the login
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
