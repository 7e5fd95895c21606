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

class Profile(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROFILE_UNSPECIFIED: _ClassVar[Profile]
    PROFILE_CLEAN: _ClassVar[Profile]
    PROFILE_COMPRESSED: _ClassVar[Profile]
ENCODING_UNSPECIFIED: Encoding
ENCODING_RGB24: Encoding
ENCODING_PNG: Encoding
ENCODING_JPEG: Encoding
ENCODING_WEBP: Encoding
PROFILE_UNSPECIFIED: Profile
PROFILE_CLEAN: Profile
PROFILE_COMPRESSED: Profile

class Frame(_message.Message):
    __slots__ = ("width", "height", "encoding", "data")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    encoding: Encoding
    data: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class OutputFormat(_message.Message):
    __slots__ = ("encoding", "quality")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    quality: int
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., quality: _Optional[int] = ...) -> None: ...

class UpscaleRequest(_message.Message):
    __slots__ = ("model", "scale", "profile", "output", "budget", "frame")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    model: str
    scale: int
    profile: Profile
    output: OutputFormat
    budget: _duration_pb2.Duration
    frame: Frame
    def __init__(self, model: _Optional[str] = ..., scale: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., output: _Optional[_Union[OutputFormat, _Mapping]] = ..., budget: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("name", "model", "scale", "profile", "max_batch_frames", "ready", "trained")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FRAMES_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    scale: int
    profile: Profile
    max_batch_frames: int
    ready: bool
    trained: bool
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., scale: _Optional[int] = ..., profile: _Optional[_Union[Profile, str]] = ..., max_batch_frames: _Optional[int] = ..., ready: _Optional[bool] = ..., trained: _Optional[bool] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_output_pixels", "min_side", "max_message_bytes", "max_inflight_frames")
    MAX_OUTPUT_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_INFLIGHT_FRAMES_FIELD_NUMBER: _ClassVar[int]
    max_output_pixels: int
    min_side: int
    max_message_bytes: int
    max_inflight_frames: int
    def __init__(self, max_output_pixels: _Optional[int] = ..., min_side: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_inflight_frames: _Optional[int] = ...) -> None: ...
