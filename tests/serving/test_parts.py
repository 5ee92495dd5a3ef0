"""The parts of the server one by one, and the files that deploy the same folder elsewhere."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from keras_seq.errors import UserError
from keras_seq.export.warmup import WARMUP, prediction_log
from keras_seq.serving import Options, ServingError
from keras_seq.serving.batching import Lane
from keras_seq.serving.failures import as_serving_error
from keras_seq.serving.loaded import LoadedModel, Signature, TensorInfo
from keras_seq.serving.options import named_folders, need_packages, read_labels, read_versions
from keras_seq.serving.values import fill_proto, from_protos, inputs_of, read_json, write_json
from keras_seq.serving.warming import replay
from tests.serving.conftest import ROWS, forecast

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


# Batching -----------------------------------------------------------------------------------------


def run_together(values, run, most_rows=8):
    """Answers of requests that come at once, and the rows of each call."""
    calls: list[int] = []

    async def everything():
        with ThreadPoolExecutor(2) as threads:
            lane = Lane(run, threads, most_rows, calls.append)
            return await asyncio.gather(*(lane(v) for v in values), return_exceptions=True)

    return asyncio.run(everything()), calls


def test_requests_are_joined_and_parted():
    values = [{"x": np.full((n, 3), n, "float32")} for n in (1, 2, 3, 1)]
    answers, calls = run_together(values, lambda v: {"y": v["x"].sum(axis=1)})
    assert [answer["y"].tolist() for answer in answers] == [[3], [6, 6], [9, 9, 9], [3]]
    assert calls == [7]


def test_no_more_rows_than_allowed_and_no_other_shapes():
    values = [{"x": np.zeros((n, t))} for n, t in ((5, 3), (5, 3), (1, 4), (3, 3), (20, 3))]
    answers, calls = run_together(values, lambda v: {"y": v["x"][:, 0]})
    assert [len(answer["y"]) for answer in answers] == [5, 5, 1, 3, 20]
    assert calls == [8, 5, 1, 20]  # 5 and 3 together; the others alone, in their order


def test_a_bad_request_does_not_spoil_the_others():
    def run(values):
        if (values["x"] < 0).any():
            raise ValueError("below 0")
        return {"y": values["x"] * 2}

    values = [{"x": np.array([n])} for n in (1, -1, 3)]
    answers, calls = run_together(values, run)
    assert [answers[0]["y"].tolist(), answers[2]["y"].tolist()] == [[2], [6]]
    assert isinstance(answers[1], ValueError)
    assert calls == [3, 1, 1, 1]


def test_whoever_has_gone_is_not_computed_for():
    calls: list[int] = []

    async def everything():
        with ThreadPoolExecutor(1) as threads:
            lane = Lane(lambda v: {"y": v["x"]}, threads, 8, calls.append)
            first, gone = (asyncio.create_task(lane({"x": np.ones((n, 1))})) for n in (1, 5))
            await asyncio.sleep(0)
            gone.cancel()
            return await first

    assert asyncio.run(everything())["y"].tolist() == [[1.0]]
    assert calls == [1]


def test_what_is_joined_and_what_is_not(toy):
    model = LoadedModel(toy / "1")
    try:
        assert model.signature("").joinable
        assert not model.signature("serving_text").joinable
        assert not model.signature("slow").joinable
    finally:
        model.close()

    def made(name: str, *shapes) -> bool:
        infos = {f"x{i}": TensorInfo("x:0", tf.float32, shape) for i, shape in enumerate(shapes)}
        return Signature(name, infos, {"y": TensorInfo("y:0", tf.float32, (None,))}, list).joinable

    assert made("serving_default", (None, 3), (None,))
    assert not made("serving_default", (1, 3))  # as many rows as stand in the file
    assert not made("serving_default", (None, 3), ())  # one value for all rows
    assert not made("serving_default", None)
    assert not made("step", (None, 3))  # states: rows may belong together


# Values -------------------------------------------------------------------------------------------

NUMBERS = Signature("s", {"x": TensorInfo("x:0", tf.float32, None)}, {}, list)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(width=32), min_size=width, max_size=width), min_size=1, max_size=4
        )
    )
)
def test_numbers_there_and_back(rows):
    """What is written as JSON and read again is the same float32, looked at closely or not."""
    array = np.array(rows, dtype="float32")
    body = write_json({"x": array}, rows=True).replace(b"predictions", b"instances")
    for truths in (False, True):
        values, by_rows = inputs_of(read_json(body), NUMBERS, truths=truths)
        assert by_rows
        assert values["x"].dtype == np.float32
        np.testing.assert_array_equal(values["x"], array)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "bool"])
def test_protos_are_what_tensorflow_reads(dtype):
    array = np.array([[0, 1], [1, 100]]).astype(dtype)
    proto = tf.make_tensor_proto(0.0)
    proto.Clear()
    fill_proto(proto, array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    assert tf.make_ndarray(proto).dtype == array.dtype
    info = TensorInfo("x:0", tf.dtypes.as_dtype(dtype), (None, 2))
    signature = Signature("s", {"x": info}, {}, list)
    for sent in (proto, tf.make_tensor_proto(array)):
        np.testing.assert_array_equal(from_protos({"x": sent}, signature, 99)["x"], array)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": "int32"}, "input x is int32, and the signature takes float32"),
        ({"name": "y"}, "input tensor alias not found in signature: y. Inputs expected to be in"),
        ({"more": True}, "Sent extra: {more}. Missing but required: {}."),
        ({"size": 10**12}, "input x has 2000000000000 values: that is more than the server takes"),
        ({"size": -1}, "input x has no shape that is known"),
        ({"content": b"abc"}, "input x is no tensor: "),
    ],
)
def test_bad_protos(change, text):
    request = predict_pb2.PredictRequest()
    proto = request.inputs[change.get("name", "x")]
    proto.CopyFrom(tf.make_tensor_proto(np.zeros((1, 2), change.get("dtype", "float32"))))
    if "size" in change:
        # A few bytes that stand for a terabyte: one value, and a shape.
        proto.tensor_content = b""
        proto.float_val.append(1.0)
        proto.tensor_shape.dim[0].size = change["size"]
    proto.tensor_content = change.get("content", proto.tensor_content)
    if "more" in change:
        request.inputs["more"].CopyFrom(tf.make_tensor_proto(1.0))
    signature = Signature("s", {"x": TensorInfo("x:0", tf.float32, (None, 2))}, {}, list)
    with pytest.raises(ServingError) as caught:
        from_protos(request.inputs, signature, 2**20)
    assert text in str(caught.value)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_errors_keep_tensorflows_code():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.linalg.matmul(np.zeros((1, 2)), np.zeros((3, 1)))
    error = as_serving_error(caught.value)
    assert (error.code, error.status) == ("INVALID_ARGUMENT", 400)
    assert as_serving_error(KeyError("secret")).args == (
        "the server failed at this request: KeyError",
    )


# Warm-up ------------------------------------------------------------------------------------------


def test_the_warm_up_is_what_tensorflow_serving_reads(toy):
    records = list(tf.data.TFRecordDataset(str(toy / "2" / WARMUP)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = [log.predict_log.request for log in logs]
    names = [request.model_spec.signature_name for request in requests]
    assert names == ["serving_default", "serving_text", "slow"]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log"] * 3
    np.testing.assert_array_equal(tf.make_ndarray(requests[0].inputs["series"]), ROWS[:1])
    assert tf.make_ndarray(requests[1].inputs["text"]).tolist() == [b"one"]
    assert tf.make_ndarray(requests[2].inputs["rounds"]) == 1


def test_the_warm_up_is_written_as_its_own_library_would():
    values = {"x": np.arange(1000, dtype="float32").reshape(2, 500)}  # lengths of two bytes
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "step"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(values["x"][:1]))
    assert prediction_log("step", values) == log.SerializeToString(deterministic=True)


def test_the_warm_up_is_played(toy):
    model = LoadedModel(toy / "1")
    try:
        assert replay(model, toy / "1") == 3
        assert replay(model, toy) == 0
        signature = model.signature("serving_default")
        found = signature.run({"series": ROWS, "kind": np.zeros(4, "int32")})
        np.testing.assert_allclose(found["forecast"], forecast(ROWS, 1), rtol=1e-6)
    finally:
        model.close()


# Options ------------------------------------------------------------------------------------------


def test_folders_and_their_names(toy, tmp_path):
    assert named_folders([toy]) == {"toy": toy}
    assert named_folders([f"mine={toy}", toy]) == {"mine": toy, "toy": toy}
    for given_folders, text in (
        ([], "no folder to serve"),
        ([tmp_path / "none"], "no folder"),
        ([tmp_path], "holds no SavedModel with a version: it wants NUMBER/saved_model.pb"),
        ([toy / "1"], "this is one version: give its parent, toy"),
        ([toy, toy], "two folders have the name 'toy'"),
        ([f"a b={toy}"], "'a b' cannot be the name of a model"),
    ):
        with pytest.raises(UserError) as caught:
            named_folders(given_folders)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"max_requests": 0},
        {"poll_seconds": 0},
        {"versions": "newest"},
        {"client_timeout": math.nan},
    ],
)
def test_options_that_cannot_work(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Options(**wrong)


def test_what_the_command_line_says():
    assert read_versions("1, 3") == (1, 3)
    assert read_labels(["a:b:stable=1"]) == {"a:b": {"stable": 1}}
    for wrong in ("stable=1", "toy:stable", "toy:=1", "toy:stable=x"):
        with pytest.raises(UserError, match="--label"):
            read_labels([wrong])
    with pytest.raises(UserError, match="--versions"):
        read_versions("1,x")


def test_missing_packages_name_the_extra(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "aiohttp" else real(n))
    with pytest.raises(UserError, match=r"needs aiohttp: pip install 'keras-seq\[serve\]'"):
        need_packages()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"versions": (7,)}, "none of the versions asked for is there"),
        ({"labels": {"toy": {"old": 9}}}, "the label toy:old stands for version 9"),
        ({"labels": {"other": {"old": 1}}}, "labels name the model 'other'"),
    ],
)
def test_servers_that_cannot_start(toy, options, text):
    from keras_seq.serving import serving

    with (
        pytest.raises(UserError) as caught,
        serving([toy], Options(port=0, grpc_port=0, **options)),
    ):
        pass
    assert text in str(caught.value)


def test_a_port_that_is_taken(toy, server):
    from keras_seq.serving import serving

    for options in (
        {"port": server.port, "grpc_port": 0},
        {"port": 0, "grpc_port": server.grpc_port},
    ):
        with (
            pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1:"),
            serving([toy], Options(**options)),
        ):
            pass


# Deployment ---------------------------------------------------------------------------------------


def containers(name: str) -> list[dict]:
    documents = [d for d in yaml.safe_load_all((DEPLOY / name).read_text("utf-8")) if d]
    if "services" in documents[0]:
        return list(documents[0]["services"].values())
    kinds = {document["kind"]: document for document in documents}
    assert set(kinds) == {"Deployment", "Service", "PersistentVolumeClaim"}
    deployment, service = kinds["Deployment"]["spec"], kinds["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels == service["selector"]
    pod = deployment["template"]["spec"]
    named = {p["name"] for c in pod["containers"] for p in c["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == named == {"rest", "grpc"}
    claim = kinds["PersistentVolumeClaim"]["metadata"]["name"]
    assert [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]] == [claim]
    return pod["containers"]


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_tensorflow_serving_is_given_the_folder(kind):
    (container,) = containers(f"{kind}-tensorflow-serving.yaml")
    assert container["image"].startswith("tensorflow/serving:")
    arguments = dict(a.removeprefix("--").split("=") for a in container[
        "command" if kind == "compose" else "args"
    ])  # fmt: skip
    # The image's own start says the ports and MODEL_NAME's folder; what follows is added to it.
    assert set(arguments) == {"enable_batching", "file_system_poll_wait_seconds"}
    given_names = container["environment" if kind == "compose" else "env"]
    if kind == "compose":
        assert given_names["MODEL_NAME"] == "tiny_gru_co2"
        assert container["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
        source, target, mode = container["volumes"][0].split(":")
        assert (target, mode) == ("/models/tiny_gru_co2", "ro")
        assert (DEPLOY / source / "1" / "saved_model.pb").is_file()
    else:
        assert given_names == [{"name": "MODEL_NAME", "value": "tiny_gru_co2"}]
        assert container["readinessProbe"]["httpGet"] == {
            "path": "/v1/models/tiny_gru_co2",
            "port": "rest",
        }
        assert [p["containerPort"] for p in container["ports"]] == [8500, 8501]
        assert container["volumeMounts"][0]["mountPath"] == "/models"
        assert container["volumeMounts"][0]["readOnly"] is True


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_openvino_model_server_is_given_the_folder(kind):
    (container,) = containers(f"{kind}-openvino.yaml")
    assert container["image"].startswith("openvino/model_server:")
    words = container["command" if kind == "compose" else "args"]
    arguments = dict(word.removeprefix("--").split("=") for word in words)
    assert arguments == {
        "model_name": "tiny_gru_co2",
        "model_path": "/models/tiny_gru_co2",
        "port": "8500",
        "rest_port": "8501",
        "file_system_poll_wait_seconds": "2",
    }
    if kind == "kubernetes":
        assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


def test_the_metadata_is_json_that_others_read():
    assert json.loads(write_json({"a": np.float32(1), "b": np.arange(2)}, rows=False)) == {
        "outputs": {"a": 1.0, "b": [0, 1]}
    }


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, keras_seq.serving; keras_seq.serving.Options(); "
        "print(sorted({'tensorflow', 'keras', 'aiohttp', 'grpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
