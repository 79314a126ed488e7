"""The node catalogues that parameters are proposed by: of an endpoint that the tenant may use."""

from uuid import UUID

from jobs import catalogue
from jobs.granted import grants_of, no_endpoint
from jobs.graph.classes import Catalogue


def of(tenant_id: UUID, endpoint: str | None) -> list[Catalogue]:
    """Of this one; without it, of all that the tenant may use, by name. Raises Refused(404)."""
    names = sorted(grants_of(tenant_id).values_list("endpoint__name", flat=True))
    if endpoint is None:
        return [found for name in names for found in catalogue.of_endpoint(name)]
    if endpoint not in names:
        raise no_endpoint(endpoint)
    return catalogue.of_endpoint(endpoint)
