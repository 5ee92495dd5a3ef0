"""Versions come and go under load without a dropped or a wrong answer; a stop drops none either."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_seq.errors import UserError
from keras_seq.serving import Options, serving
from tests.serving.conftest import ROWS, forecast
from tests.serving.test_rest import instances, post, url, wait_until_one_is_under_way


def states(server) -> dict[str, str]:
    found = requests.get(url(server, "/v1/models/toy"), timeout=20).json()["model_version_status"]
    return {entry["version"]: entry["state"] for entry in found}


def wait_for(server, wanted: dict[str, str], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not wanted.items() <= states(server).items():
        assert time.monotonic() < deadline, states(server)
        time.sleep(0.02)


def put(source: Path, folder: Path, number: int) -> None:
    """Puts a version in place at once, as the exporter does."""
    hidden = folder / f".{number}"
    shutil.copytree(source, hidden)
    hidden.rename(folder / str(number))


def test_swapped_under_load(toy, copied):
    """Odd versions answer as 1, even ones as 2; four clients ask over both protocols meanwhile."""
    import tensorflow as tf

    stop, failures, counts = threading.Event(), [], {"REST": 0, "GRPC": 0}
    seen: set[int] = set()
    options = Options(port=0, grpc_port=0, poll_seconds=0.05)
    with serving([copied], options) as server:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "toy"
        request.inputs["series"].CopyFrom(tf.make_tensor_proto(ROWS))
        request.inputs["kind"].CopyFrom(tf.make_tensor_proto(np.arange(4, dtype="int32")))

        def ask_grpc() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                while not stop.is_set():
                    answer = stub.Predict(request, timeout=20)
                    number = answer.model_spec.version.value
                    got = tf.make_ndarray(answer.outputs["forecast"])
                    right = forecast(ROWS, 2 - number % 2)
                    np.testing.assert_allclose(got, right, rtol=1e-6)
                    seen.add(number)
                    counts["GRPC"] += 1

        def ask_rest() -> None:
            while not stop.is_set():
                status, answer = post(server, instances())
                assert status == 200, answer
                got = np.array([row["forecast"] for row in answer["predictions"]])
                first = np.allclose(got, forecast(ROWS, 1), rtol=1e-6)
                assert first or np.allclose(got, forecast(ROWS, 2), rtol=1e-6)
                counts["REST"] += 1

        def guarded(ask) -> None:
            try:
                ask()
            except BaseException as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=guarded, args=(a,)) for a in (ask_grpc, ask_rest) * 2]
        for thread in threads:
            thread.start()
        for number in range(2, 6):
            put(toy / str(2 - number % 2), copied, number)
            shutil.rmtree(copied / str(number - 1))
            wait_for(server, {str(number): "AVAILABLE", str(number - 1): "END"})
            time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert seen >= {2, 3, 4, 5}
        assert min(counts.values()) > 20


def test_a_version_is_kept_while_it_is_used(toy, copied):
    """A long call of version 1 ends after version 2 has come, with version 1's answer."""
    with serving([copied], Options(port=0, grpc_port=0, poll_seconds=0.05)) as server:
        answers = []
        body = {"signature_name": "slow", "inputs": {"rounds": 100_000}}
        thread = threading.Thread(target=lambda: answers.append(post(server, body)))
        thread.start()
        wait_until_one_is_under_way(server)
        put(toy / "2", copied, 2)
        wait_for(server, {"2": "AVAILABLE"})
        assert thread.is_alive(), "the call was too short to show anything"
        wait_for(server, {"1": "UNLOADING"})
        status, answer = post(server, instances(), "/v1/models/toy/versions/1:predict")
        assert (status, answer["error"]) == (
            404,
            "Servable not found for request: Specific(toy, 1)",
        )
        thread.join()
        assert answers[0][0] == 200
        assert answers[0][1]["outputs"] == pytest.approx(1.0, rel=1e-5)
        wait_for(server, {"1": "END"})


def test_a_broken_version_changes_nothing(copied):
    with serving([copied], Options(port=0, grpc_port=0, poll_seconds=0.05)) as server:
        hidden = copied / ".2"
        hidden.mkdir()
        (hidden / "saved_model.pb").write_bytes(b"no model")
        hidden.rename(copied / "2")
        wait_for(server, {"2": "END", "1": "AVAILABLE"})
        found = requests.get(url(server, "/v1/models/toy/versions/2"), timeout=20).json()
        status = found["model_version_status"][0]["status"]
        assert status["error_code"] != "OK"
        assert "cannot be loaded" in status["error_message"]
        assert post(server, instances())[0] == 200
        assert post(server, instances(), "/v1/models/toy/versions/2:predict")[0] == 404
        # When the copy is complete it is tried again; nothing else has to be done.
        shutil.rmtree(copied / "2")
        shutil.copytree(copied / "1", copied / ".2")
        (copied / ".2").rename(copied / "2")
        wait_for(server, {"2": "AVAILABLE", "1": "END"})


def test_back_to_an_older_version(toy, copied):
    put(toy / "2", copied, 2)
    with serving([copied], Options(port=0, grpc_port=0, poll_seconds=0.05)) as server:
        assert states(server) == {"2": "AVAILABLE"}
        shutil.rmtree(copied / "2")
        wait_for(server, {"1": "AVAILABLE", "2": "END"})
        shutil.rmtree(copied / "1")  # an empty folder takes nothing away
        time.sleep(0.3)
        assert post(server, instances())[0] == 200


def test_a_warm_up_that_fails_is_no_version(copied):
    from keras_seq.export.warmup import WARMUP, prediction_log

    path = copied / "1" / WARMUP
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(prediction_log("serving_default", {"kind": np.zeros(1, "int32")}))
    with (
        pytest.raises(UserError, match=r"a warm-up request fails: input size does not match"),
        serving([copied], Options(port=0, grpc_port=0)),
    ):
        pass


@pytest.mark.slow
def test_the_command_ends_what_it_has_begun(copied, tmp_path):
    """SIGTERM while a request is under way: it is answered, and the command ends with 0."""
    said = tmp_path / "said"
    command = [sys.executable, "-m", "keras_seq", "serve", f"mine={copied}"]
    command += ["--port", "0", "--grpc-port", "0", "--label", "mine:stable=1"]
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while "gRPC" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        lines = dict(line.split(maxsplit=1) for line in said.read_text().splitlines())
        assert lines["Serving"] == "mine version 1"
        root = lines["REST"].removesuffix("NAME:predict")
        assert root.startswith("http://127.0.0.1:")
        answers = []
        body = {"signature_name": "slow", "inputs": {"rounds": 100_000}}
        ask = f"{root}mine/labels/stable:predict"
        thread = threading.Thread(
            target=lambda: answers.append(requests.post(ask, json=body, timeout=60))
        )
        thread.start()
        page = f"{root.removesuffix('v1/models/')}metrics"
        while "keras_seq_requests_under_way 1.0" not in requests.get(page, timeout=20).text:
            assert thread.is_alive()
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers[0].json()["outputs"] == pytest.approx(1.0, rel=1e-5)
        assert process.wait(60) == 0
        assert "Traceback" not in said.read_text()
    finally:
        process.kill()
        process.wait()
