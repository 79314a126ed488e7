"""The operator's pages on endpoints, grants, worker keys, workers, jobs, tasks; and on tenants, who have all of it."""

from jobs.admin import fleet, job, tasks, tenants

__all__ = ["fleet", "job", "tasks", "tenants"]
