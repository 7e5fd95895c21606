"""Triton's backend `onnxruntime` for a tritonserver that has none: a Python-based backend for CPUs.

Triton runs this file in its Python stub for every model whose config says `backend: "onnxruntime"`, so the repository
is the same one that NVIDIA's container serves with its native backend. The engine is chosen by EMBEDDED_TRITON_ENGINE:

- `openvino`: float32, and the default; docs/decisions.md has the measurement. A graph that it cannot take (YNOT's
  one-sided Fourier transforms) goes to ONNX Runtime, and the log says so.
- `openvino-bf16`: faster where the CPU has bfloat16, at a loss of up to a few grey levels on flat pictures.
- `onnxruntime`: the reference.
- `torch`: the network in PyTorch, from the weights the model was exported from; on a GPU in half precision, channels
  last, as a CUDA graph per frame size. A stand-in for TensorRT where a GPU is at hand and TensorRT is not.

EMBEDDED_TRITON_THREADS limits the threads; 0 means every core.

An engine for 4K frames holds 0.3 to 1.7 GB, and a repository may hold the whole zoo. So when the machine runs short of
memory, models that are idle let their engines go; the next frame makes them again, which takes 0.05 to 0.3 s.
"""

import ctypes
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

# A compiled model belongs to one input shape and holds its buffers: a few hundred MB at 1080p.
_KEPT_SHAPES = 4
_SCARCE = 0.35  # share of the memory that is still available
_IDLE_S = 2.0


def _one_by_one(infer: Callable, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """A batch, frame by frame: one frame keeps every core busy, and two at once only crowd its cache."""
    batch = len(next(iter(inputs.values())))
    if batch == 1:
        return infer(inputs)
    answers = None
    for index in range(batch):
        answer = infer({name: array[index : index + 1] for name, array in inputs.items()})
        if answers is None:
            answers = np.empty((batch, *answer.shape[1:]), answer.dtype)
        answers[index] = answer[0]
    return answers


class _OpenVINO:
    def __init__(self, path: Path, threads: int, precision: str) -> None:
        import openvino

        self._core = openvino.Core()
        self._model = self._core.read_model(path)
        self._settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._requests: OrderedDict = OrderedDict()
        # Raises RuntimeError for a graph whose shapes OpenVINO does not understand. 48 is a side in every pixel format.
        sides = {port.any_name: list(port.partial_shape)[1:] for port in self._model.inputs}
        self._model.clone().reshape(
            {name: [1, *(48 if each.is_dynamic else each for each in shape)] for name, shape in sides.items()}
        )

    def infer(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return _one_by_one(self._infer_one, inputs)

    def _infer_one(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        shapes = _shapes(inputs)
        request = self._requests.pop(shapes, None)
        if request is None:
            # Shapes known at compile time run a third faster than dynamic ones.
            model = self._model.clone()
            model.reshape(dict(shapes))
            request = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
            while len(self._requests) >= _KEPT_SHAPES:
                self._requests.popitem(last=False)
        self._requests[shapes] = request
        # The request's own buffer: good until its next inference.
        return request.infer(inputs, share_inputs=True, share_outputs=True)[0]

    def release(self) -> None:
        self._requests.clear()


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._session = self._open()

    def _open(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def infer(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        if self._session is None:
            self._session = self._open()
        session = self._session
        return _one_by_one(lambda frame: session.run(None, frame)[0], inputs)

    def release(self) -> None:
        self._session = None


class _Torch:
    def __init__(self, path: Path, threads: int) -> None:
        # The stub knows nothing of the project's folder; the server that starts it does.
        sys.path.insert(0, os.environ["EMBEDDED_TRITON_PROJECT"])
        import torch

        from export.graph import deployed_graph
        from models.layout import channels_last
        from models.registry import get
        from models.weights import digest, load, untrained, weights_path

        if threads:
            torch.set_num_threads(threads)
        made = json.loads(path.with_name("manifest.json").read_text())
        spec, scale, profile = get(made["model"]), made["scale"], made["profile"]
        if made["weights_sha256"] and made["weights_sha256"] != digest(weights_path(spec, scale, profile)):
            raise pb_utils.TritonModelException(f"{path}: exported from other weights than those in weights/")
        network = load(spec, scale, profile) if made["trained"] else untrained(spec, scale)
        self._torch = torch
        self._cuda = torch.cuda.is_available()
        dtype = torch.float16 if self._cuda else torch.float32
        graph = channels_last(deployed_graph(spec, network, dtype, made.get("pixel_format", "rgb24")))
        self._graph = graph.to("cuda") if self._cuda else graph
        self._recorded: OrderedDict = OrderedDict()

    def infer(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        torch = self._torch
        with torch.inference_mode():
            if not self._cuda:
                return self._graph(**{name: torch.from_numpy(np.array(each)) for name, each in inputs.items()}).numpy()
            shapes = _shapes(inputs)
            if shapes not in self._recorded:
                while len(self._recorded) >= _KEPT_SHAPES:
                    self._recorded.popitem(last=False)
                self._recorded[shapes] = self._record(inputs)
            staged, still, answer, host, recording = self._recorded[shapes]
            for name, array in inputs.items():
                # From pinned memory the GPU fetches a frame by itself; elsewhere the driver would copy it once more.
                np.copyto(staged[name].numpy(), array)
                still[name].copy_(staged[name], non_blocking=True)
            recording.replay()
            host.copy_(answer)  # waits for the GPU
            return host.numpy()

    def _record(self, inputs: dict[str, np.ndarray]) -> tuple:
        torch = self._torch
        staged = {name: torch.from_numpy(np.array(array)).pin_memory() for name, array in inputs.items()}
        still = {name: tensor.to("cuda") for name, tensor in staged.items()}
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                answer = self._graph(**still)
        torch.cuda.synchronize()
        recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recording):
            answer = self._graph(**still)
        return staged, still, answer, torch.empty(answer.shape, dtype=torch.uint8, pin_memory=True), recording

    def release(self) -> None:
        self._recorded.clear()


def _shapes(inputs: dict[str, np.ndarray]) -> tuple:
    """What an engine is compiled for."""
    return tuple((name, array.shape) for name, array in inputs.items())


def _engine(path: Path) -> "_OpenVINO | _OnnxRuntime | _Torch":
    name = os.environ.get("EMBEDDED_TRITON_ENGINE", "openvino")
    threads = int(os.environ.get("EMBEDDED_TRITON_THREADS", "0"))
    if name == "torch":
        return _Torch(path, threads)
    if name == "onnxruntime":
        return _OnnxRuntime(path, threads)
    precisions = {"openvino": "f32", "openvino-bf16": "bf16"}
    if name not in precisions:
        raise pb_utils.TritonModelException(
            f"EMBEDDED_TRITON_ENGINE={name!r}: known engines are openvino, openvino-bf16, onnxruntime and torch"
        )
    try:
        return _OpenVINO(path, threads, precisions[name])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        pb_utils.Logger.log_warn(f"{path}: ONNX Runtime takes it, because OpenVINO cannot: {reason}")
        return _OnnxRuntime(path, threads)


def _memory_is_scarce() -> bool:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available, total = (int(lines[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    return available < _SCARCE * total


class TritonPythonModel:
    """One instance of a model; Triton calls it from one thread."""

    def initialize(self, args: dict) -> None:
        """Load the model file of the version that Triton names."""
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            # pb_utils.Tensor is built against numpy 1: it would answer with empty frames and no error.
            raise pb_utils.TritonModelException(f"numpy {np.__version__} in {sys.prefix}: Triton's stub needs numpy<2")
        config = json.loads(args["model_config"])
        file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file)
        self._inputs = [each["name"] for each in config["input"]]
        self._output = config["output"][0]["name"]
        self._engine = _engine(path)
        self._lock = threading.Lock()
        self._last_used = time.monotonic()
        self._holding = False
        threading.Thread(target=self._watch_memory, name="memory", daemon=True).start()

    def execute(self, requests: list) -> list:
        """Answer each request; one that fails does not fail the others."""
        responses = []
        with self._lock:
            for request in requests:
                responses.append(self._answer(request, alone=len(requests) == 1))
            self._last_used = time.monotonic()
            self._holding = True
        return responses

    def _answer(self, request: "pb_utils.InferenceRequest", *, alone: bool) -> "pb_utils.InferenceResponse":
        try:
            tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self._inputs}
            frames = self._engine.infer({name: tensor.as_numpy() for name, tensor in tensors.items()})
            # Triton reads the answers after the last of them is made, and an engine's buffer holds one.
            return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, frames if alone else frames.copy())])
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"inference failed: {error}"))

    def _watch_memory(self) -> None:
        """Let the engine go when it is idle and the machine is short of memory."""
        while True:
            time.sleep(_IDLE_S / 4)
            with self._lock:
                idle = time.monotonic() - self._last_used > _IDLE_S
                if self._holding and idle and _memory_is_scarce():
                    self._engine.release()
                    self._holding = False
                    ctypes.CDLL(None).malloc_trim(0)
