"""The operator's pages on users, members and API keys. Tenants are in jobs, which knows all that is theirs."""

from accounts.admin import keys, users

__all__ = ["keys", "users"]
