"""Workflows that tenants store under a name: versions that do not change, a current one, and typed parameters, by which
a job is submitted. A name is resolved when the job is made; what the worker gets is a whole graph."""
