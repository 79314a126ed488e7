"""The management API, /api/v1: tenant-scoped resources, one shape of errors."""

from django.urls import path, re_path

from jobs.api.assets import Assets, Complete, OneAsset
from jobs.api.buckets import Buckets, OneBucket, Verify
from jobs.api.deliveries import Deliveries, OneDelivery, Replay, ReplayFailed
from jobs.api.errors import Nowhere
from jobs.api.jobs import Cancel, Jobs, OneJob, Retry
from jobs.api.keys import Keys, OneKey, Roll
from jobs.api.tenant import Endpoints, Me, OneEndpoint, Usage
from jobs.api.webhooks import OneWebhook, Secrets, SendTest, Webhooks
from jobs.api.workflows import OneWorkflow, Propose, Schema, Version, Versions, Workflows

urlpatterns = [
    path("assets", Assets.as_view()),
    path("assets/<uuid:asset>", OneAsset.as_view()),
    path("assets/<uuid:asset>/complete", Complete.as_view()),
    path("buckets", Buckets.as_view()),
    path("buckets/<str:name>", OneBucket.as_view()),
    path("buckets/<str:name>/verify", Verify.as_view()),
    path("deliveries", Deliveries.as_view()),
    path("deliveries/replay", ReplayFailed.as_view()),
    path("deliveries/<str:delivery>", OneDelivery.as_view()),
    path("deliveries/<str:delivery>/replay", Replay.as_view()),
    path("jobs", Jobs.as_view()),
    path("jobs/<str:job>", OneJob.as_view()),
    path("jobs/<str:job>/cancel", Cancel.as_view()),
    path("jobs/<str:job>/retry", Retry.as_view()),
    path("keys", Keys.as_view()),
    path("keys/<str:prefix>", OneKey.as_view()),
    path("keys/<str:prefix>/roll", Roll.as_view()),
    path("me", Me.as_view()),
    path("endpoints", Endpoints.as_view()),
    path("endpoints/<str:name>", OneEndpoint.as_view()),
    path("usage", Usage.as_view()),
    path("webhooks", Webhooks.as_view()),
    path("webhooks/secrets", Secrets.as_view()),
    path("webhooks/<uuid:webhook>", OneWebhook.as_view()),
    path("webhooks/<uuid:webhook>/test", SendTest.as_view()),
    path("workflows", Workflows.as_view()),
    path("workflows/propose", Propose.as_view()),
    path("workflows/<str:name>", OneWorkflow.as_view()),
    path("workflows/<str:name>/schema", Schema.as_view()),
    path("workflows/<str:name>/versions", Versions.as_view()),
    path("workflows/<str:name>/versions/<str:number>", Version.as_view()),
    re_path("", Nowhere.as_view()),
]
