"""The operator's pages: endpoints, grants, workers and their keys, jobs, webhooks and deliveries, tasks, usage,
deletions; and tenants, who have it all."""

from jobs.admin import deletions, deliveries, fleet, job, tasks, tenants, usage, webhooks

__all__ = ["deletions", "deliveries", "fleet", "job", "tasks", "tenants", "usage", "webhooks"]
