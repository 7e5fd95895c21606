"""Every setting of the gateway: a variable `UPSCALE_<NAME>`, or a flag `--<name>` of `python -m service`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.discovery import Discovery

RGB_BYTES = 3
UHD_PIXELS = 3840 * 2160
PREFIX = "UPSCALE_"


class Settings(BaseSettings):
    """What an operator may choose; the docstring under each field is its help."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_prog_name="python -m service",
        cli_hide_none_type=True,
        # "model" is our word for a network, not pydantic's.
        protected_namespaces=(),
    )

    host: str = "0.0.0.0"
    """The address that the gRPC port listens on; that of the metrics port, too, unless metrics_host says another."""
    port: int = Field(default=50051, ge=0, le=65535)
    """The gRPC port; 0 picks a free one."""
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """The port of /metrics, /livez and /readyz, which are plain HTTP and open to whoever reaches it; 0 picks a free
    one."""
    metrics_host: str = ""
    """The address that the metrics port listens on; host's, if empty."""

    workers: int = Field(default=1, gt=0)
    """Gateway processes on the port. Each has its own max_inflight_frames and shared_memory_bytes; their metrics are
    added up."""

    triton_url: str = "127.0.0.1:8001"
    """Triton's gRPC endpoints, a comma-separated list of: host:port; dns:host:port, every address that the name
    resolves to; file:/path, one host:port a line and comments after #, read again each time: replace the file as a
    whole, by renaming. What cannot be looked up stays what it was."""
    triton_shared_memory: Literal["auto", "on", "off"] = "auto"
    """How frames reach Triton. auto: by shared memory if Triton shares /dev/shm with the gateway, as bytes if not. on:
    by shared memory or not at all. off: always as bytes."""
    triton_poll_s: float = Field(default=0.5, gt=0)
    """How often an endpoint's readiness and its models are looked at, and which endpoints there are, in seconds."""
    infer_timeout_s: float = Field(default=10.0, gt=0)
    """A batch without an answer for so long is given up, and its slots are never used again."""

    default_model: str = "runet"
    """The model of a request that names none."""
    default_profile: Literal["clean", "compressed"] = "compressed"
    """The profile of a request that names none."""

    ladder: str = "runet,bicubic_plus_plus,bicubic"
    """Models, best first and comma-separated, that may answer for a better one where a request allows it (step_down)
    and its budget cannot be met; those that Triton does not hold are passed over."""
    warm_up_s: float = Field(default=5.0, ge=0)
    """How long an endpoint's batches are timed before it is used, in seconds; the last one may take longer. The default
    model and the ladder come first; what is not reached is learnt from the first frames, some of which may be late."""

    max_output_pixels: int = Field(default=UHD_PIXELS, gt=0)
    """The largest answer: width times height. A frame that would be larger is refused before it is decoded."""
    min_side: int = Field(default=16, ge=16)
    """The shortest side a frame may have, in pixels; the exported graphs need 16."""
    max_message_bytes: int = Field(default=RGB_BYTES * UHD_PIXELS + 64 * 1024, gt=0)
    """The largest gRPC message taken: one 4K RGB frame and some slack."""
    max_inflight_frames: int = Field(default=16, gt=0)
    """Frames in the gateway at once, those in Triton and answers on their way included. One more is refused at once
    (RESOURCE_EXHAUSTED). For full batches it takes two for every instance: one in Triton, one that forms."""
    shared_memory_bytes: int = Field(default=1 << 30, gt=0)
    """The most shared memory for frames. A slot holds a frame and its answer: 31 MB for 1080p to 4K."""
    client_shared_memory: bool = True
    """Whether clients of this host, of the service's own user, may have frames read from memory of theirs, and answers
    written to it (ShareRegion)."""
    max_client_regions: int = Field(default=64, gt=0)
    """Regions that clients share at once."""
    max_sessions: int = Field(default=32, gt=0)
    """Sessions that are open at once."""
    max_stream_window: int = Field(default=4, gt=0)
    """The most frames of one session that are worked on at once; what each may take of max_inflight_frames."""
    stream_write_timeout_s: float = Field(default=30.0, gt=0)
    """A session whose client leaves an answer unread for so long is ended."""
    session_idle_s: float = Field(default=300.0, gt=0)
    """A session whose client sends nothing for so long, while no frame of its is worked on, is ended."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """A call whose message has not come after so long is ended."""
    max_metadata_bytes: int = Field(default=8192, gt=0)
    """The largest metadata of a call."""
    max_calls_per_connection: int = Field(default=256, gt=0)
    """Calls that one connection may have open at once; more of them wait at the client's side."""
    connection_idle_s: float = Field(default=900.0, ge=1)
    """A connection without calls for so long is closed; clients make another when they need one."""
    connection_age_s: float = Field(default=0.0, ge=0)
    """A connection so old is closed as soon as its calls are over, so that clients spread over gateways that came
    later; 0: never."""

    tls_certificate: Path | None = None
    """The service's certificate and those that lead to its root, PEM: clients connect by TLS. Read again when it, the
    key or the clients' CA changes."""
    tls_key: Path | None = None
    """The certificate's private key, PEM, without a passphrase."""
    tls_client_ca: Path | None = None
    """Certificates, PEM: only clients with a certificate from one of these may connect (mTLS)."""
    auth_keys: Path | None = None
    """A file of static keys, which `python -m service.access.keys CLIENT` makes: only calls with one of them, or with a
    token that auth_jwt_keys accepts, are answered. Read again when it changes."""
    auth_jwt_keys: Path | None = None
    """The public keys of an identity provider, as a JSON Web Key Set or one PEM: only calls with a token of its, or
    with a key of auth_keys, are answered. Read again when it changes."""
    auth_jwt_issuer: str = ""
    """What the tokens' `iss` must be."""
    auth_jwt_audience: str = ""
    """What the tokens' `aud` must hold."""

    client_frames_per_s: float = Field(default=0.0, ge=0)
    """Frames a second that one client may send; 0: no limit. A client is a name from a token, a key or a certificate,
    or else an address. Every worker counts for itself."""
    client_burst_frames: int = Field(default=120, gt=0)
    """Frames that one client may send at once, after a pause."""
    client_sessions: int = Field(default=0, ge=0)
    """Sessions that one client may have open; 0: no limit but max_sessions."""

    codec_threads: int = Field(default=os.cpu_count() or 1, gt=0)
    """Threads that decode and encode PNG, JPEG and WebP."""

    shutdown_grace_s: float = Field(default=15.0, ge=0)
    """After SIGTERM, frames in flight may take so long to finish, in seconds."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important log lines to print."""
    log_format: Literal["text", "json"] = "text"
    """How log lines look: text for people; json, one object a line, for what collects them."""
    log_failures_per_s: int = Field(default=10, gt=0)
    """Failed frames that are logged, a second and reason; one more line says how many others there were."""
    otlp_endpoint: str = ""
    """Where OpenTelemetry traces go: an OTLP receiver by gRPC, http://host:4317 or https. Empty: none are made. Headers
    and certificates for it come from OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_*."""
    trace_ratio: float = Field(default=0.01, ge=0, le=1)
    """The share of the traces beginning here that is recorded, 0 to 1. Of those that began at a client, the client has
    decided which are."""

    @property
    def ladder_models(self) -> list[str]:
        """The ladder's models, best first."""
        return [model.strip() for model in self.ladder.split(",") if model.strip()]

    @property
    def largest_slot_bytes(self) -> int:
        """Bytes of the largest frame (x2) and its answer."""
        return RGB_BYTES * (self.max_output_pixels // 4 + self.max_output_pixels)

    @field_validator("triton_url")
    @classmethod
    def _refuse_no_endpoints(cls, value: str) -> str:
        Discovery(value)
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _refuse_no_receiver(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError(f"{value!r} is no OTLP receiver; accepted are http://host:port and https://host:port")
        return value

    @model_validator(mode="after")
    def _refuse_half_measures(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: one is set and the other is not")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key: clients show theirs by TLS only")
        if self.auth_jwt_keys is not None and not (self.auth_jwt_issuer and self.auth_jwt_audience):
            raise ValueError(
                "auth_jwt_keys needs auth_jwt_issuer and auth_jwt_audience: tokens for others are not ours"
            )
        return self

    @model_validator(mode="after")
    def _refuse_impossible(self) -> Self:
        if self.shared_memory_bytes < self.largest_slot_bytes:
            raise ValueError(
                f"shared_memory_bytes={self.shared_memory_bytes} holds not one frame: max_output_pixels="
                f"{self.max_output_pixels} needs {self.largest_slot_bytes}"
            )
        return self


def env_name(field: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{field}".upper()


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Names in `environment` that look like settings and are none, misspelt most likely."""
    known = {env_name(name) for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
