"""The management API, /api/v1: tenant-scoped resources, one shape of errors."""

from django.urls import path, re_path

from jobs.api.assets import Assets, Complete, OneAsset
from jobs.api.errors import Nowhere
from jobs.api.jobs import OneJob

urlpatterns = [
    path("assets", Assets.as_view()),
    path("assets/<uuid:asset>", OneAsset.as_view()),
    path("assets/<uuid:asset>/complete", Complete.as_view()),
    path("jobs/<str:job>", OneJob.as_view()),
    re_path("", Nowhere.as_view()),
]
