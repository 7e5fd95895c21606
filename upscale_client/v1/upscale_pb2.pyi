import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_RGB24: _ClassVar[Encoding]
    ENCODING_PNG: _ClassVar[Encoding]
    ENCODING_JPEG: _ClassVar[Encoding]
    ENCODING_WEBP: _ClassVar[Encoding]
    ENCODING_NV12: _ClassVar[Encoding]
    ENCODING_I420: _ClassVar[Encoding]

class ColourMatrix(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOUR_MATRIX_UNSPECIFIED: _ClassVar[ColourMatrix]
    COLOUR_MATRIX_BT709: _ClassVar[ColourMatrix]
    COLOUR_MATRIX_BT601: _ClassVar[ColourMatrix]

class ColourRange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COLOUR_RANGE_UNSPECIFIED: _ClassVar[ColourRange]
    COLOUR_RANGE_LIMITED: _ClassVar[ColourRange]
    COLOUR_RANGE_FULL: _ClassVar[ColourRange]

class Profile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROFILE_UNSPECIFIED: _ClassVar[Profile]
    PROFILE_CLEAN: _ClassVar[Profile]
    PROFILE_COMPRESSED: _ClassVar[Profile]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LIVE: _ClassVar[Priority]
    PRIORITY_OFFLINE: _ClassVar[Priority]

class DropPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_POLICY_UNSPECIFIED: _ClassVar[DropPolicy]
    DROP_POLICY_KEEP_ALL: _ClassVar[DropPolicy]
    DROP_POLICY_LATEST_WINS: _ClassVar[DropPolicy]
ENCODING_UNSPECIFIED: Encoding
ENCODING_RGB24: Encoding
ENCODING_PNG: Encoding
ENCODING_JPEG: Encoding
ENCODING_WEBP: Encoding
ENCODING_NV12: Encoding
ENCODING_I420: Encoding
COLOUR_MATRIX_UNSPECIFIED: ColourMatrix
COLOUR_MATRIX_BT709: ColourMatrix
COLOUR_MATRIX_BT601: ColourMatrix
COLOUR_RANGE_UNSPECIFIED: ColourRange
COLOUR_RANGE_LIMITED: ColourRange
COLOUR_RANGE_FULL: ColourRange
PROFILE_UNSPECIFIED: Profile
PROFILE_CLEAN: Profile
PROFILE_COMPRESSED: Profile
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LIVE: Priority
PRIORITY_OFFLINE: Priority
DROP_POLICY_UNSPECIFIED: DropPolicy
DROP_POLICY_KEEP_ALL: DropPolicy
DROP_POLICY_LATEST_WINS: DropPolicy

class Colour(_message.Message):
    __slots__ = ("matrix", "range")
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    matrix: ColourMatrix
    range: ColourRange
    def __init__(self, matrix: _Optional[_Union[ColourMatrix, str]] = ..., range: _Optional[_Union[ColourRange, str]] = ...) -> None: ...

class RegionRef(_message.Message):
    __slots__ = ("handle", "offset")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    handle: str
    offset: int
    def __init__(self, handle: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("width", "height", "encoding", "colour", "region", "data")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    COLOUR_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    encoding: Encoding
    colour: Colour
    region: RegionRef
    data: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., colour: _Optional[_Union[Colour, _Mapping]] = ..., region: _Optional[_Union[RegionRef, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class OutputFormat(_message.Message):
    __slots__ = ("encoding", "quality")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    quality: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., quality: _Optional[int] = ...) -> None: ...

class UpscaleRequest(_message.Message):
    __slots__ = ("model", "scale", "profile", "output", "budget", "priority", "step_down", "answer", "frame")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STEP_DOWN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    model: str
    scale: int
    profile: Profile
    output: OutputFormat
    budget: _duration_pb2.Duration
    priority: Priority
    step_down: bool
    answer: RegionRef
    frame: Frame
    def __init__(self, model: _Optional[str] = ..., scale: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., output: _Optional[_Union[OutputFormat, _Mapping]] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., priority: _Optional[_Union[Priority, str]] = ..., step_down: _Optional[bool] = ..., answer: _Optional[_Union[RegionRef, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class UpscaleResponse(_message.Message):
    __slots__ = ("model", "variant", "times", "batch_frames", "frame")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    model: str
    variant: str
    times: StageTimes
    batch_frames: int
    frame: Frame
    def __init__(self, model: _Optional[str] = ..., variant: _Optional[str] = ..., times: _Optional[_Union[StageTimes, _Mapping]] = ..., batch_frames: _Optional[int] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class StreamOptions(_message.Message):
    __slots__ = ("model", "scale", "profile", "output", "budget", "drop", "window", "priority", "step_down")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STEP_DOWN_FIELD_NUMBER: _ClassVar[int]
    model: str
    scale: int
    profile: Profile
    output: OutputFormat
    budget: _duration_pb2.Duration
    drop: DropPolicy
    window: int
    priority: Priority
    step_down: bool
    def __init__(self, model: _Optional[str] = ..., scale: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., output: _Optional[_Union[OutputFormat, _Mapping]] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., drop: _Optional[_Union[DropPolicy, str]] = ..., window: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ..., step_down: _Optional[bool] = ...) -> None: ...

class UpscaleStreamRequest(_message.Message):
    __slots__ = ("options", "sequence", "presentation_time", "answer", "frame")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PRESENTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    options: StreamOptions
    sequence: int
    presentation_time: int
    answer: RegionRef
    frame: Frame
    def __init__(self, options: _Optional[_Union[StreamOptions, _Mapping]] = ..., sequence: _Optional[int] = ..., presentation_time: _Optional[int] = ..., answer: _Optional[_Union[RegionRef, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class UpscaleStreamResponse(_message.Message):
    __slots__ = ("sequence", "presentation_time", "variant", "times", "batch_frames", "dropped", "error", "model", "frame")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PRESENTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    presentation_time: int
    variant: str
    times: StageTimes
    batch_frames: int
    dropped: int
    error: FrameError
    model: str
    frame: Frame
    def __init__(self, sequence: _Optional[int] = ..., presentation_time: _Optional[int] = ..., variant: _Optional[str] = ..., times: _Optional[_Union[StageTimes, _Mapping]] = ..., batch_frames: _Optional[int] = ..., dropped: _Optional[int] = ..., error: _Optional[_Union[FrameError, _Mapping]] = ..., model: _Optional[str] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class FrameError(_message.Message):
    __slots__ = ("code", "reason", "message", "retry_after", "request_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    retry_after: _duration_pb2.Duration
    request_id: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class StreamSummary(_message.Message):
    __slots__ = ("answered", "failed", "dropped")
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    answered: int
    failed: int
    dropped: int
    def __init__(self, answered: _Optional[int] = ..., failed: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...

class ShareRegionRequest(_message.Message):
    __slots__ = ("name", "byte_size", "proof")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    name: str
    byte_size: int
    proof: bytes
    def __init__(self, name: _Optional[str] = ..., byte_size: _Optional[int] = ..., proof: _Optional[bytes] = ...) -> None: ...

class ShareRegionResponse(_message.Message):
    __slots__ = ("handle",)
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    handle: str
    def __init__(self, handle: _Optional[str] = ...) -> None: ...

class StageTimes(_message.Message):
    __slots__ = ("receive", "decode", "queue", "infer", "encode")
    RECEIVE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    INFER_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    receive: _duration_pb2.Duration
    decode: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    infer: _duration_pb2.Duration
    encode: _duration_pb2.Duration
    def __init__(self, receive: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., decode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., infer: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., encode: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("variants", "default_model", "default_profile", "limits")
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PROFILE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    variants: _containers.RepeatedCompositeFieldContainer[Variant]
    default_model: str
    default_profile: Profile
    limits: Limits
    def __init__(self, variants: _Optional[_Iterable[_Union[Variant, _Mapping]]] = ..., default_model: _Optional[str] = ..., default_profile: _Optional[_Union[Profile, str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Variant(_message.Message):
    __slots__ = ("name", "model", "scale", "profile", "max_batch_frames", "ready", "trained", "pixel_format", "batch_times")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FRAMES_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    PIXEL_FORMAT_FIELD_NUMBER: _ClassVar[int]
    BATCH_TIMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    scale: int
    profile: Profile
    max_batch_frames: int
    ready: bool
    trained: bool
    pixel_format: Encoding
    batch_times: _containers.RepeatedCompositeFieldContainer[BatchTime]
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., scale: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., max_batch_frames: _Optional[int] = ..., ready: _Optional[bool] = ..., trained: _Optional[bool] = ..., pixel_format: _Optional[_Union[Encoding, str]] = ..., batch_times: _Optional[_Iterable[_Union[BatchTime, _Mapping]]] = ...) -> None: ...

class BatchTime(_message.Message):
    __slots__ = ("endpoint", "width", "height", "frames", "predicted")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    width: int
    height: int
    frames: int
    predicted: _duration_pb2.Duration
    def __init__(self, endpoint: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., frames: _Optional[int] = ..., predicted: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_output_pixels", "min_side", "max_message_bytes", "max_inflight_frames", "max_stream_window", "shared_memory")
    MAX_OUTPUT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INFLIGHT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_WINDOW_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    max_output_pixels: int
    min_side: int
    max_message_bytes: int
    max_inflight_frames: int
    max_stream_window: int
    shared_memory: bool
    def __init__(self, max_output_pixels: _Optional[int] = ..., min_side: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_inflight_frames: _Optional[int] = ..., max_stream_window: _Optional[int] = ..., shared_memory: _Optional[bool] = ...) -> None: ...
