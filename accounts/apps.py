from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig
from django.core.checks import Tags, register


class AccountsConfig(AppConfig):
    name = "accounts"
    default = True

    def ready(self) -> None:
        from accounts.rotation import check_seal_keys

        register(check_seal_keys, Tags.database)


class AdminConfig(SimpleAdminConfig):
    """Django's admin, without looking for pages: hearth/urls.py does, in web alone."""

    default_site = "accounts.site.Site"
    default = False
