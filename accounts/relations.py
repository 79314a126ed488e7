"""Which rows name another, as they would stand in the way of its deletion."""

from collections.abc import Iterator

from django.db.models import CASCADE, PROTECT, ForeignObjectRel, Model

from accounts.models import Owned


def protectors(obj: Model) -> Iterator[str]:
    """The kinds of rows that name this one, or one of its kind that goes with it, and keep it from being deleted. Of
    what a tenant owns only its own rows are looked through: they have an index by tenant."""
    for relation in obj._meta.get_fields(include_hidden=True):
        if not isinstance(relation, ForeignObjectRel):
            continue
        kind = relation.related_model
        rows = kind._base_manager.filter(**{relation.field.name: obj})
        owner = getattr(obj, "tenant_id", None)
        if owner and issubclass(kind, Owned):
            rows = rows.filter(tenant=owner)
        if relation.on_delete is PROTECT and rows.exists():
            yield str(kind._meta.verbose_name_plural)
        elif relation.on_delete is CASCADE and kind is type(obj):
            for row in rows:
                yield from protectors(row)
