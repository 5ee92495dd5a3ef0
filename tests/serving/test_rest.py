"""REST as TensorFlow Serving speaks it: answers worked out by hand, errors by its own texts."""

from __future__ import annotations

import base64
import json
import time

import numpy as np
import pytest
import requests

from tests.serving.conftest import ROWS, forecast

KINDS = [3, -1, 0, 7]


def url(server, rest: str) -> str:
    return f"http://127.0.0.1:{server.port}{rest}"


def post(server, body, rest: str = "/v1/models/toy:predict") -> tuple[int, dict]:
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    answer = requests.post(url(server, rest), data=data, timeout=20)
    assert answer.headers["Content-Type"].startswith("application/json")
    return answer.status_code, answer.json()


def wait_until_one_is_under_way(server) -> None:
    while "keras_seq_requests_under_way 1.0" not in requests.get(url(server, "/metrics")).text:
        time.sleep(0.01)


def instances(rows: np.ndarray = ROWS) -> dict:
    return {
        "instances": [
            {"series": row.tolist(), "kind": kind} for row, kind in zip(rows, KINDS, strict=False)
        ]
    }


def test_rows(server):
    status, answer = post(server, instances())
    assert (status, set(answer)) == (200, {"predictions"})
    got = np.array([row["forecast"] for row in answer["predictions"]])
    np.testing.assert_allclose(got, forecast(ROWS, 2), rtol=1e-6)
    assert [row["twice"] for row in answer["predictions"]] == [6, -2, 0, 14]


def test_columns(server):
    body = {"inputs": {"series": ROWS.tolist(), "kind": KINDS}, "signature_name": "serving_default"}
    status, answer = post(server, body)
    assert (status, set(answer)) == (200, {"outputs"})
    np.testing.assert_allclose(answer["outputs"]["forecast"], forecast(ROWS, 2), rtol=1e-6)
    assert answer["outputs"]["twice"] == [6, -2, 0, 14]


@pytest.mark.parametrize(
    ("which", "version"),
    [
        ("", 2),
        ("/versions/1", 1),
        ("/versions/2", 2),
        ("/versions/0", 2),
        ("/labels/stable", 1),
        ("/labels/canary", 2),
    ],
)
def test_versions_and_labels(server, which, version):
    _, answer = post(server, instances(), f"/v1/models/toy{which}:predict")
    got = np.array([row["forecast"] for row in answer["predictions"]])
    np.testing.assert_allclose(got, forecast(ROWS, version), rtol=1e-6)


def test_texts_in_base64_and_out(server):
    body = {
        "signature_name": "serving_text",
        "instances": ["Grün", {"b64": base64.b64encode(b"\xff\x00x").decode()}],
    }
    status, answer = post(server, body)
    assert status == 200
    first, second = answer["predictions"]
    assert first["upper"] == "GRüN"  # bytes by bytes, as the operator does it
    assert base64.b64decode(first["text_bytes"]["b64"]) == "Grün".encode()
    assert base64.b64decode(second["text_bytes"]["b64"]) == b"\xff\x00x"
    assert [first["letters"], second["letters"]] == [5, 3]


def test_a_single_output_goes_without_its_name(server):
    status, answer = post(server, {"signature_name": "slow", "inputs": 3})
    assert status == 200
    assert answer["outputs"] == pytest.approx(2.0, rel=1e-5)


def test_numbers_that_json_does_not_have(server):
    body = '{"inputs": {"series": [[[NaN, 1], [Infinity, -Infinity]]], "kind": [1]}}'
    answer = requests.post(url(server, "/v1/models/toy:predict"), data=body, timeout=20)
    first = json.loads(answer.text)["outputs"]["forecast"][0][0]
    assert np.isnan(first[0])
    assert first[1] == -np.inf


def test_status(server):
    answer = requests.get(url(server, "/v1/models/toy"), timeout=20).json()
    fine = {"error_code": "OK", "error_message": ""}
    assert answer == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": fine},
            {"version": "1", "state": "AVAILABLE", "status": fine},
        ]
    }
    one = requests.get(url(server, "/v1/models/toy/labels/stable"), timeout=20).json()
    assert [entry["version"] for entry in one["model_version_status"]] == ["1"]


def test_metadata(server):
    answer = requests.get(url(server, "/v1/models/toy/versions/1/metadata"), timeout=20).json()
    assert answer["model_spec"] == {"name": "toy", "signature_name": "", "version": "1"}
    found = answer["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "serving_text", "slow"} <= set(found)
    series = found["serving_default"]["inputs"]["series"]
    assert series["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in series["tensor_shape"]["dim"]] == ["-1", "-1", "2"]
    assert found["serving_default"]["method_name"] == "tensorflow/serving/predict"


def test_health_and_metrics(server):
    post(server, instances())
    post(server, "garbage")
    assert requests.get(url(server, "/health/live"), timeout=20).status_code == 200
    assert requests.get(url(server, "/health/ready"), timeout=20).json() == {"ready": True}
    page = requests.get(url(server, "/monitoring/prometheus/metrics"), timeout=20).text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
    key = 'keras_seq_requests_total{code="%s",model="toy",protocol="REST"}'
    assert float(lines[key % "OK"]) >= 1
    assert float(lines[key % "INVALID_ARGUMENT"]) >= 1
    assert lines['keras_seq_model_version_available{model="toy",version="1"}'] == "1.0"
    # Each call so far had its rows counted: at least the four of this test.
    assert float(lines['keras_seq_batch_rows_sum{model="toy"}']) >= 4


NAMED = {"series": [[1, 2]], "kind": 1}
WRONG = {
    "garbage": ("{]", 400, "JSON Parse error: "),
    "nothing": ("", 400, "JSON Parse error: The document is empty"),
    "not utf-8": (b'{"inputs": "\xff\xfe"}', 400, "JSON Parse error: "),
    "nested too deeply": ("[" * 100_000, 400, "JSON Parse error: "),
    "no object": ("[1, 2]", 400, "JSON Value: [1, 2] Is not object"),
    "no inputs": ({"x": 1}, 400, "Missing 'inputs' or 'instances' key"),
    "both": ({"inputs": 1, "instances": [1]}, 400, "expecting only one of 'inputs' or 'instances'"),
    "instances no list": ({"instances": 4}, 400, "Excepting 'instances' to be an list/array"),
    "no instances": ({"instances": []}, 400, "No values in 'instances' array"),
    "plain list": ({"instances": [1]}, 400, "instances is a plain list, but expecting list of obj"),
    "plain value": ({"inputs": [1]}, 400, "inputs is a plain value/list, but expecting an object"),
    "signature no text": (
        {"signature_name": 3},
        400,
        "'signature_name' key must be a string value",
    ),
    "unknown signature": (
        {"signature_name": "nope", "inputs": 1},
        400,
        'Serving signature name: "nope" not found in signature def',
    ),
    "missing input": ({"inputs": {"kind": [1]}}, 400, "Missing named input: series in 'inputs'"),
    "missing key": (
        {"instances": [NAMED, {"kind": 1}]},
        400,
        "Failed to process element: 1 of 'instances' list. JSON object: {\"kind\": 1} keys must be "
        "equal to: kind,series",
    ),
    "unknown key": (
        {"instances": [{**NAMED, "more": 1}]},
        400,
        "JSON object: does not have named input: more",
    ),
    "mixed": ({"instances": [NAMED, 1]}, 400, "Expecting object but got list at item 1"),
    "text for a number": (
        {"instances": [{**NAMED, "kind": "a"}]},
        400,
        "Failed to process element: 0 key: kind of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "a" Type: String is not of expected type: int32',
    ),
    "fraction for a whole number": (
        {"inputs": {"series": [[[1, 2]]], "kind": [1.5]}},
        400,
        "JSON Value: 1.5 Type: Number is not of expected type: int32",
    ),
    "too large a whole number": (
        {"inputs": {"series": [[[1, 2]]], "kind": [2**31]}},
        400,
        "JSON Value: 2147483648 Type: Number is not of expected type: int32",
    ),
    "too large a number": (
        {"inputs": {"series": [[[1, 1e40]]], "kind": [1]}},
        400,
        "Cannot convert JSON value: 1e+40 to float without loss of precision.",
    ),
    "truth among numbers": (
        {"inputs": {"series": [[[1, True]]], "kind": [1]}},
        400,
        "JSON Value: true Type: True is not of expected type: float",
    ),
    "null": (
        {"inputs": {"series": [[[1, None]]], "kind": [1]}},
        400,
        "JSON Value: null Type: Null is not of expected type: float",
    ),
    "ragged": (
        {"inputs": {"series": [[[1, 2], [3]]], "kind": [1]}},
        400,
        "Encountered list at unexpected size: 1 at level: 2 expected size: 2",
    ),
    "rows of two lengths": (
        {"instances": [NAMED, {"series": [[1, 2], [3, 4]], "kind": 1}]},
        400,
        "Expecting tensor size: 2 but got: 4",
    ),
    "wrong shape": (
        {"inputs": {"series": [[[1, 2, 3]]], "kind": [1]}},
        400,
        "input series has shape [1,1,3], and the signature takes [-1,-1,2]",
    ),
    "rows that differ": (
        {"inputs": {"series": [[[1, 2]]], "kind": [1, 2]}},
        400,
        "input tensors must have equal 0th-dimension size",
    ),
    "no base64": (
        {"signature_name": "serving_text", "instances": [{"b64": "***"}]},
        400,
        "Unable to base64 decode",
    ),
    "number for a text": (
        {"signature_name": "serving_text", "instances": [3]},
        400,
        "JSON Value: 3 Type: Number is not of expected type: string",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_bodies(server, name):
    body, wanted, text = WRONG[name]
    status, answer = post(server, body)
    assert list(answer) == ["error"]
    assert text in answer["error"]
    assert status == wanted


@pytest.mark.parametrize(
    ("method", "rest", "status", "text"),
    [
        ("POST", "/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        (
            "POST",
            "/v1/models/toy/versions/9:predict",
            404,
            "Servable not found for request: Specific(toy, 9)",
        ),
        (
            "POST",
            "/v1/models/toy/labels/old:predict",
            400,
            "Unrecognized servable version label: old",
        ),
        ("POST", "/v1/models/toy:classify", 400, "Expected classify signature method_name"),
        ("POST", "/v1/models/toy", 400, "Malformed request: POST /v1/models/toy"),
        ("PUT", "/v1/models/toy:predict", 400, "Malformed request: PUT /v1/models/toy:predict"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", "/v1/models/toy/versions/9", 404, "Could not find version 9 of model toy"),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
        ("GET", f"/v1/models/toy/versions/{10**30}", 400, "Failed to convert version"),
        ("GET", "/", 404, "Not Found"),
    ],
)
def test_wrong_addresses(server, method, rest, status, text):
    answer = requests.request(method, url(server, rest), data=json.dumps(instances()), timeout=20)
    assert answer.status_code == status
    assert text in answer.json()["error"]
