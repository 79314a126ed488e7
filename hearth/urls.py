from django.contrib import admin
from django.urls import include, path

from jobs.api.schema import Docs, Schema

admin.autodiscover()

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("jobs.api.urls")),
    path("api/schema/", Schema.as_view(), name="schema"),
    path("api/docs/", Docs.as_view()),
]
