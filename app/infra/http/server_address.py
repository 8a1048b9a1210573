"""The address at which clients reach this server, for documents that name it."""

from typing import NamedTuple

from app.infra.http.query_params import AnyRequest


class ServerAddress(NamedTuple):
    """``public_url`` if it is set; else where clients sent their request, below ``prefix``, the path of the service."""

    public_url: str = ""
    prefix: str = ""

    def of(self, request: AnyRequest) -> str:
        """Return the address for a request, without a slash at its end."""
        base = str(request.base_url).rstrip("/").removesuffix(self.prefix) + self.prefix
        return self.public_url or base


def address_of(request: AnyRequest) -> str:
    """Return the address of the server that a request was sent to."""
    address: ServerAddress = request.app.state.address
    return address.of(request)
