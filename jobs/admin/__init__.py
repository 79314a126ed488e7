"""The operator's pages: endpoints, grants, workers and their keys, jobs, stored workflows, webhooks and deliveries,
tasks, usage, deletions; and tenants, who have it all."""

from jobs.admin import deletions, deliveries, fleet, job, tasks, tenants, usage, webhooks, workflows

__all__ = ["deletions", "deliveries", "fleet", "job", "tasks", "tenants", "usage", "webhooks", "workflows"]
