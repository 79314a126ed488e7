"""Pages on users, members, logins, API keys, the audit trail. Tenants are in jobs, which knows all that is theirs."""

from accounts.admin import keys, logins, trail, users

__all__ = ["keys", "logins", "trail", "users"]
