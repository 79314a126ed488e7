"""The operator's pages: endpoints, grants, workers and their keys, jobs, tasks, usage; and tenants, who have it all."""

from jobs.admin import fleet, job, tasks, tenants, usage

__all__ = ["fleet", "job", "tasks", "tenants", "usage"]
