"""The real tritonserver without Docker, from the nvidia-pytriton wheel, serving ONNX models on the CPU."""

from deploy.embedded.server import EmbeddedTriton, EmbeddedTritonError

__all__ = ["EmbeddedTriton", "EmbeddedTritonError"]
