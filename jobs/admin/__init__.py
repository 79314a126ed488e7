"""The operator's pages: endpoints, grants, workers and their keys, jobs, webhooks and deliveries, tasks, usage; and
tenants, who have it all."""

from jobs.admin import deliveries, fleet, job, tasks, tenants, usage, webhooks

__all__ = ["deliveries", "fleet", "job", "tasks", "tenants", "usage", "webhooks"]
