from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenSessionRequest(_message.Message):
    __slots__ = ("protocol", "client_version", "client_name")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    client_version: str
    client_name: str
    def __init__(self, protocol: _Optional[int] = ..., client_version: _Optional[str] = ..., client_name: _Optional[str] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("id", "token", "manager_version", "carrier_port", "expiry_seconds", "carrier_fingerprint")
    ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MANAGER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CARRIER_PORT_FIELD_NUMBER: _ClassVar[int]
    EXPIRY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CARRIER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    id: str
    token: str
    manager_version: str
    carrier_port: int
    expiry_seconds: float
    carrier_fingerprint: str
    def __init__(self, id: _Optional[str] = ..., token: _Optional[str] = ..., manager_version: _Optional[str] = ..., carrier_port: _Optional[int] = ..., expiry_seconds: _Optional[float] = ..., carrier_fingerprint: _Optional[str] = ...) -> None: ...

class WatchClusterInfoRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Cidr(_message.Message):
    __slots__ = ("cidr", "kind", "source", "confidence")
    CIDR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    cidr: str
    kind: str
    source: str
    confidence: str
    def __init__(self, cidr: _Optional[str] = ..., kind: _Optional[str] = ..., source: _Optional[str] = ..., confidence: _Optional[str] = ...) -> None: ...

class ClusterInfo(_message.Message):
    __slots__ = ("cidrs", "dns_server", "cluster_domain", "namespaces", "notices")
    CIDRS_FIELD_NUMBER: _ClassVar[int]
    DNS_SERVER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    cidrs: _containers.RepeatedCompositeFieldContainer[Cidr]
    dns_server: str
    cluster_domain: str
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cidrs: _Optional[_Iterable[_Union[Cidr, _Mapping]]] = ..., dns_server: _Optional[str] = ..., cluster_domain: _Optional[str] = ..., namespaces: _Optional[_Iterable[str]] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthResponse(_message.Message):
    __slots__ = ("version", "uptime_seconds", "sessions", "flows")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    version: str
    uptime_seconds: float
    sessions: int
    flows: int
    def __init__(self, version: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., sessions: _Optional[int] = ..., flows: _Optional[int] = ...) -> None: ...
