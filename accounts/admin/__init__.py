"""The operator's pages on users, members, logins and API keys. Tenants are in jobs, which knows all that is theirs."""

from accounts.admin import keys, logins, users

__all__ = ["keys", "logins", "users"]
