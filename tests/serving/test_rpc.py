"""gRPC on TensorFlow Serving's own protocol buffers, and its codes for what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.serving.conftest import ROWS, forecast


@pytest.fixture(scope="module")
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as opened:
        yield opened


@pytest.fixture()
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(**inputs: np.ndarray) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name = "toy"
    for name, value in (inputs or {"series": ROWS, "kind": np.arange(4, dtype="int32")}).items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def told(call, *args) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, timeout=20)
    return caught.value.code().name, caught.value.details()


@pytest.mark.parametrize(("label", "number", "wanted"), [("", 0, 2), ("stable", 0, 1), ("", 1, 1)])
def test_predict(stub, label, number, wanted):
    asked = request()
    if label:
        asked.model_spec.version_label = label
    elif number:
        asked.model_spec.version.value = number
    answer = stub.Predict(asked, timeout=20)
    assert set(answer.outputs) == {"forecast", "twice"}
    got = tf.make_ndarray(answer.outputs["forecast"])
    np.testing.assert_allclose(got, forecast(ROWS, wanted), rtol=1e-6)
    assert tf.make_ndarray(answer.outputs["twice"]).tolist() == [0, 2, 4, 6]
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (
        "toy",
        wanted,
        "serving_default",
    )


def test_only_what_is_asked_for(stub):
    asked = request()
    asked.output_filter.append("twice")
    assert set(stub.Predict(asked, timeout=20).outputs) == {"twice"}
    asked.output_filter.append("twice")
    assert told(stub.Predict, asked) == ("INVALID_ARGUMENT", "duplicate output tensor alias: twice")
    asked.output_filter[:] = ["half"]
    code, text = told(stub.Predict, asked)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith("output tensor alias not found in signature: half Outputs expected")


def test_texts(stub):
    asked = request(text=np.array([b"a\xff", b""], dtype=object))
    asked.model_spec.signature_name = "serving_text"
    answer = stub.Predict(asked, timeout=20)
    assert tf.make_ndarray(answer.outputs["text_bytes"]).tolist() == [b"a\xff", b""]
    assert tf.make_ndarray(answer.outputs["letters"]).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"name": ""}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"name": "no"}, "NOT_FOUND", "Servable not found for request: Latest(no)"),
        ({"signature_name": "no"}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        (
            {"version_label": "old"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: old",
        ),
    ],
)
def test_wrong_names(stub, change, code, text):
    asked = request()
    for key, value in change.items():
        setattr(asked.model_spec, key, value)
    assert told(stub.Predict, asked) == (code, text)


def test_wrong_inputs(stub):
    code, text = told(stub.Predict, request(series=ROWS))
    assert code == "INVALID_ARGUMENT"
    assert text == (
        "input size does not match signature: 1!=2 len({series}) != len({kind,series}). "
        "Sent extra: {}. Missing but required: {kind}."
    )
    code, text = told(stub.Predict, request(series=ROWS, kind=np.arange(4, dtype="int64")))
    assert (code, text) == (
        "INVALID_ARGUMENT",
        "input kind is int64, and the signature takes int32",
    )


def test_a_message_that_is_too_long(stub):
    code, text = told(stub.Predict, request(series=np.zeros((1, 2**18, 2), "float32")))
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in text


def test_what_is_not_served(stub):
    code, _ = told(stub.Classify, classification_pb2.ClassificationRequest())
    assert code == "UNIMPLEMENTED"


def test_metadata(stub):
    asked = get_model_metadata_pb2.GetModelMetadataRequest()
    asked.model_spec.name = "toy"
    assert told(stub.GetModelMetadata, asked)[0] == "INVALID_ARGUMENT"
    asked.metadata_field.append("signature_def")
    answer = stub.GetModelMetadata(asked, timeout=20)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    assert found.signature_def["serving_default"].inputs["kind"].dtype == tf.int32.as_datatype_enum
    assert answer.model_spec.version.value == 2


def test_status(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "toy"
    found = stub.GetModelStatus(asked, timeout=20).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(entry.version, entry.state) for entry in found] == [(2, available), (1, available)]
    asked.model_spec.name = "no"
    assert told(stub.GetModelStatus, asked) == (
        "NOT_FOUND",
        "Could not find any versions of model no",
    )
