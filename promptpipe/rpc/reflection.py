"""Server reflection (v1 and v1alpha), by which grpcurl and its like know our services without our protos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool
from grpclib.reflection.service import ServerReflection

from promptpipe.rpc.pb.google_proto_descriptor_pool import default_google_proto_descriptor_pool

if TYPE_CHECKING:
    from collections.abc import Sequence


class ChainedPools:
    """Looks descriptors up in one pool after the other, as far as reflection asks for them.

    Generated code keeps a pool of its own; health and reflection themselves are in protobuf's default one.
    """

    def __init__(self, *pools: descriptor_pool.DescriptorPool) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:  # noqa: N802  names of protobuf's
        """Return the file; raise `KeyError`."""
        return self._find("FindFileByName", name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802
        """Return the file that a symbol is in; raise `KeyError`.

        The pools know messages, enums and services by name. A method or field is where its parent is.
        """
        try:
            return self._find("FindFileContainingSymbol", symbol)
        except KeyError:
            parent = symbol.rpartition(".")[0]
            return self._find("FindFileContainingSymbol", parent)

    def FindMessageTypeByName(self, name: str) -> Any:  # noqa: N802
        """Return the message's descriptor; raise `KeyError`."""
        return self._find("FindMessageTypeByName", name)

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:  # noqa: N802
        """Raise `KeyError`: there are no extensions in proto3."""
        raise KeyError(message, number)

    def FindAllExtensions(self, message: Any) -> list[Any]:  # noqa: N802
        """Return nothing: there are no extensions in proto3."""
        del message
        return []

    def _find(self, method: str, name: str) -> Any:
        for pool in self._pools:
            try:
                return getattr(pool, method)(name)
            except KeyError:
                continue
        raise KeyError(name)


def service_name(service: Any) -> str:
    """Return the full name of a generated service."""
    path: str = next(iter(service.__mapping__()))
    return path.split("/")[1]


def with_reflection(services: Sequence[Any]) -> list[Any]:
    """Return *services* and, beside them, the services that describe them."""
    pool = ChainedPools(default_google_proto_descriptor_pool, descriptor_pool.Default())
    return ServerReflection.extend(services, pool=pool)
