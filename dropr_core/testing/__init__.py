"""The kit for authors of plugins: subclass the contract of your kind, give it one fixture, run pytest.

    from dropr_core.testing import SerializerCase, SerializerContract

    class TestMine(SerializerContract):
        @pytest.fixture
        def serializer_case(self):
            return SerializerCase(make=Mine, values=[1, "two"], refused=[object()])

Owns the public names; each is imported when it is asked for (a storage's contract needs hypothesis, the
others do not). Needs pytest; the package's pytest plugin comes by itself. See docs/plugins/.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dropr_core.testing.bench import StorageCase as StorageCase
    from dropr_core.testing.bodies_bench import BodiesCase as BodiesCase
    from dropr_core.testing.bodies_contract import BodiesContract as BodiesContract
    from dropr_core.testing.checker import History as History
    from dropr_core.testing.checker import check as check
    from dropr_core.testing.gateway_contract import GatewayCase as GatewayCase
    from dropr_core.testing.gateway_contract import GatewayContract as GatewayContract
    from dropr_core.testing.handler_contract import HandlerCase as HandlerCase
    from dropr_core.testing.handler_contract import HandlerContract as HandlerContract
    from dropr_core.testing.node_contract import NodeContract as NodeContract
    from dropr_core.testing.node_rig import NodeCase as NodeCase
    from dropr_core.testing.observer_contract import ObserverCase as ObserverCase
    from dropr_core.testing.observer_contract import ObserverContract as ObserverContract
    from dropr_core.testing.serializer_contract import SerializerCase as SerializerCase
    from dropr_core.testing.serializer_contract import SerializerContract as SerializerContract
    from dropr_core.testing.shared_contract import SharedCase as SharedCase
    from dropr_core.testing.shared_contract import SharedContract as SharedContract
    from dropr_core.testing.shared_storage_contract import SharedStorageCase as SharedStorageCase
    from dropr_core.testing.shared_storage_contract import SharedStorageContract as SharedStorageContract
    from dropr_core.testing.storage_contract import StorageContract as StorageContract
    from dropr_core.testing.transport_contract import TransportCase as TransportCase
    from dropr_core.testing.transport_contract import TransportContract as TransportContract

_WHERE = {
    "BodiesCase": "bodies_bench",
    "BodiesContract": "bodies_contract",
    "GatewayCase": "gateway_contract",
    "GatewayContract": "gateway_contract",
    "HandlerCase": "handler_contract",
    "HandlerContract": "handler_contract",
    "History": "checker",
    "NodeCase": "node_rig",
    "NodeContract": "node_contract",
    "ObserverCase": "observer_contract",
    "ObserverContract": "observer_contract",
    "SerializerCase": "serializer_contract",
    "SerializerContract": "serializer_contract",
    "SharedCase": "shared_contract",
    "SharedContract": "shared_contract",
    "SharedStorageCase": "shared_storage_contract",
    "SharedStorageContract": "shared_storage_contract",
    "StorageCase": "bench",
    "StorageContract": "storage_contract",
    "TransportCase": "transport_contract",
    "TransportContract": "transport_contract",
    "check": "checker",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"dropr_core.testing.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'dropr_core.testing' has no attribute {name!r}")
