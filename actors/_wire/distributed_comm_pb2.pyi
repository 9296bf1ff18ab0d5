from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorData(_message.Message):
    __slots__ = ("data", "shape", "dtype")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    def __init__(self, data: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ...) -> None: ...

class CommData(_message.Message):
    __slots__ = ("comm_type", "tensor_data", "numpy_data", "pickle_data", "json_data", "metadata", "header", "buffers")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COMM_TYPE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_DATA_FIELD_NUMBER: _ClassVar[int]
    NUMPY_DATA_FIELD_NUMBER: _ClassVar[int]
    PICKLE_DATA_FIELD_NUMBER: _ClassVar[int]
    JSON_DATA_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BUFFERS_FIELD_NUMBER: _ClassVar[int]
    comm_type: str
    tensor_data: TensorData
    numpy_data: bytes
    pickle_data: bytes
    json_data: str
    metadata: _containers.ScalarMap[str, str]
    header: Header
    buffers: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, comm_type: _Optional[str] = ..., tensor_data: _Optional[_Union[TensorData, _Mapping]] = ..., numpy_data: _Optional[bytes] = ..., pickle_data: _Optional[bytes] = ..., json_data: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., header: _Optional[_Union[Header, _Mapping]] = ..., buffers: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("source_rank", "dest_rank", "data", "tag")
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    DEST_RANK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    source_rank: int
    dest_rank: int
    data: CommData
    tag: str
    def __init__(self, source_rank: _Optional[int] = ..., dest_rank: _Optional[int] = ..., data: _Optional[_Union[CommData, _Mapping]] = ..., tag: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: bool = ..., message: _Optional[str] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("receiver_rank", "source_rank", "tag", "comm_type")
    RECEIVER_RANK_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    COMM_TYPE_FIELD_NUMBER: _ClassVar[int]
    receiver_rank: int
    source_rank: int
    tag: str
    comm_type: str
    def __init__(self, receiver_rank: _Optional[int] = ..., source_rank: _Optional[int] = ..., tag: _Optional[str] = ..., comm_type: _Optional[str] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ("data", "source_rank", "tag")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    data: CommData
    source_rank: int
    tag: str
    def __init__(self, data: _Optional[_Union[CommData, _Mapping]] = ..., source_rank: _Optional[int] = ..., tag: _Optional[str] = ...) -> None: ...

class BroadcastRequest(_message.Message):
    __slots__ = ("sender_rank", "root_rank", "data")
    SENDER_RANK_FIELD_NUMBER: _ClassVar[int]
    ROOT_RANK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sender_rank: int
    root_rank: int
    data: CommData
    def __init__(self, sender_rank: _Optional[int] = ..., root_rank: _Optional[int] = ..., data: _Optional[_Union[CommData, _Mapping]] = ...) -> None: ...

class BroadcastResponse(_message.Message):
    __slots__ = ("success", "data")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    success: bool
    data: CommData
    def __init__(self, success: bool = ..., data: _Optional[_Union[CommData, _Mapping]] = ...) -> None: ...

class AllReduceRequest(_message.Message):
    __slots__ = ("rank", "tensor", "operation")
    RANK_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    rank: int
    tensor: TensorData
    operation: str
    def __init__(self, rank: _Optional[int] = ..., tensor: _Optional[_Union[TensorData, _Mapping]] = ..., operation: _Optional[str] = ...) -> None: ...

class AllReduceResponse(_message.Message):
    __slots__ = ("success", "result")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    success: bool
    result: TensorData
    def __init__(self, success: bool = ..., result: _Optional[_Union[TensorData, _Mapping]] = ...) -> None: ...

class BarrierRequest(_message.Message):
    __slots__ = ("rank", "barrier_id")
    RANK_FIELD_NUMBER: _ClassVar[int]
    BARRIER_ID_FIELD_NUMBER: _ClassVar[int]
    rank: int
    barrier_id: str
    def __init__(self, rank: _Optional[int] = ..., barrier_id: _Optional[str] = ...) -> None: ...

class BarrierResponse(_message.Message):
    __slots__ = ("success", "participants")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    success: bool
    participants: int
    def __init__(self, success: bool = ..., participants: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("target", "method", "call", "index", "outcome", "transfer", "sizes", "source_rank", "tag", "remaining", "group", "returns", "force", "alone", "claims", "trace", "origin", "shared")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_RANK_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    target: str
    method: str
    call: int
    index: int
    outcome: int
    transfer: int
    sizes: _containers.RepeatedScalarFieldContainer[int]
    source_rank: int
    tag: str
    remaining: float
    group: str
    returns: int
    force: bool
    alone: bool
    claims: _containers.RepeatedCompositeFieldContainer[Claim]
    trace: str
    origin: str
    shared: _containers.RepeatedCompositeFieldContainer[Shared]
    def __init__(self, target: _Optional[str] = ..., method: _Optional[str] = ..., call: _Optional[int] = ..., index: _Optional[int] = ..., outcome: _Optional[int] = ..., transfer: _Optional[int] = ..., sizes: _Optional[_Iterable[int]] = ..., source_rank: _Optional[int] = ..., tag: _Optional[str] = ..., remaining: _Optional[float] = ..., group: _Optional[str] = ..., returns: _Optional[int] = ..., force: bool = ..., alone: bool = ..., claims: _Optional[_Iterable[_Union[Claim, _Mapping]]] = ..., trace: _Optional[str] = ..., origin: _Optional[str] = ..., shared: _Optional[_Iterable[_Union[Shared, _Mapping]]] = ...) -> None: ...

class Shared(_message.Message):
    __slots__ = ("index", "name", "offset", "size")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    offset: int
    size: int
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("id", "owner", "token")
    ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    owner: Place
    token: str
    def __init__(self, id: _Optional[str] = ..., owner: _Optional[_Union[Place, _Mapping]] = ..., token: _Optional[str] = ...) -> None: ...

class Place(_message.Message):
    __slots__ = ("process", "host", "socket", "node", "doors", "node_name", "arena")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DOORS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    process: str
    host: str
    socket: str
    node: str
    doors: _containers.RepeatedScalarFieldContainer[str]
    node_name: str
    arena: str
    def __init__(self, process: _Optional[str] = ..., host: _Optional[str] = ..., socket: _Optional[str] = ..., node: _Optional[str] = ..., doors: _Optional[_Iterable[str]] = ..., node_name: _Optional[str] = ..., arena: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("seq", "data")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    seq: int
    data: CommData
    def __init__(self, seq: _Optional[int] = ..., data: _Optional[_Union[CommData, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "session", "lane", "source", "target", "received", "resumed", "package_version", "python_version", "arena", "minor", "landing")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    LANDING_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    session: str
    lane: str
    source: str
    target: str
    received: int
    resumed: bool
    package_version: str
    python_version: str
    arena: str
    minor: int
    landing: str
    def __init__(self, protocol: _Optional[int] = ..., session: _Optional[str] = ..., lane: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., received: _Optional[int] = ..., resumed: bool = ..., package_version: _Optional[str] = ..., python_version: _Optional[str] = ..., arena: _Optional[str] = ..., minor: _Optional[int] = ..., landing: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "code")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    code: int
    def __init__(self, reason: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("hello", "ack", "envelopes", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    ENVELOPES_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ack: int
    envelopes: _containers.RepeatedCompositeFieldContainer[Envelope]
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ack: _Optional[int] = ..., envelopes: _Optional[_Iterable[_Union[Envelope, _Mapping]]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class PublicCall(_message.Message):
    __slots__ = ("actor", "namespace", "method", "arguments")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    actor: str
    namespace: str
    method: str
    arguments: _containers.RepeatedCompositeFieldContainer[CommData]
    def __init__(self, actor: _Optional[str] = ..., namespace: _Optional[str] = ..., method: _Optional[str] = ..., arguments: _Optional[_Iterable[_Union[CommData, _Mapping]]] = ...) -> None: ...

class PublicReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: CommData
    def __init__(self, value: _Optional[_Union[CommData, _Mapping]] = ...) -> None: ...
