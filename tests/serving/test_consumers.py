"""Programs that we did not write read what we serve and what we export."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import ovmsclient
import pytest
from ovmsclient.tfs_compat.base import errors

from tests.serving.conftest import ROWS, forecast

KINDS = np.array([3, -1, 0, 7], dtype="int32")

C_PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

static int bad(const char *what, TF_Status *status) {
    if (TF_GetCode(status) == TF_OK) return 0;
    fprintf(stderr, "%s: %s\n", what, TF_Message(status));
    return 1;
}

int main(int count, char **words) {
    TF_Status *status = TF_NewStatus();
    TF_Graph *graph = TF_NewGraph();
    TF_SessionOptions *options = TF_NewSessionOptions();
    const char *tags[] = {"serve"};
    TF_Session *session = TF_LoadSessionFromSavedModel(
        options, NULL, words[1], tags, 1, graph, NULL, status);
    if (bad("load", status)) return 1;
    TF_Output in[2] = {{TF_GraphOperationByName(graph, words[2]), 0},
                       {TF_GraphOperationByName(graph, words[3]), 0}};
    TF_Output out = {TF_GraphOperationByName(graph, words[4]), words[5][0] - '0'};
    if (!in[0].oper || !in[1].oper || !out.oper) return 2;
    int64_t sizes[3] = {1, 6, 2}, one = 1;
    TF_Tensor *given[2] = {TF_AllocateTensor(TF_FLOAT, sizes, 3, 12 * sizeof(float)),
                           TF_AllocateTensor(TF_INT32, &one, 1, sizeof(int))};
    for (int i = 0; i < 12; i++) ((float *)TF_TensorData(given[0]))[i] = i / 7.0f;
    *(int *)TF_TensorData(given[1]) = 3;
    TF_Tensor *found = NULL;
    TF_SessionRun(session, NULL, in, given, 2, &out, &found, 1, NULL, 0, NULL, status);
    if (bad("run", status)) return 3;
    for (int i = 0; i < 6; i++) printf("%.7g ", ((float *)TF_TensorData(found))[i]);
    TF_CloseSession(session, status);
    return 0;
}
"""


def clients(server):
    return {
        "grpc": ovmsclient.make_grpc_client(f"127.0.0.1:{server.grpc_port}"),
        "http": ovmsclient.make_http_client(f"127.0.0.1:{server.port}"),
    }


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_ovmsclient(server, kind):
    client = clients(server)[kind]
    fine = {"state": "AVAILABLE", "error_code": 0, "error_message": ""}
    assert client.get_model_status("toy", 1) == {1: fine}
    for version, wanted in ((0, 2), (1, 1), (2, 2)):
        found = client.predict({"series": ROWS, "kind": KINDS}, "toy", version)
        np.testing.assert_allclose(found["forecast"], forecast(ROWS, wanted), rtol=1e-6)
        assert found["twice"].tolist() == [6, -2, 0, 14]
    found = client.get_model_metadata("toy", 2)
    if kind == "grpc":
        assert found["model_version"] == 2
        assert found["inputs"]["series"] == {"shape": [-1, -1, 2], "dtype": "DT_FLOAT"}
    else:
        assert found["model_spec"]["version"] == "2"


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_ovmsclient_reads_our_errors(server, kind):
    client = clients(server)[kind]
    with pytest.raises(errors.ModelNotFoundError, match=r"Latest\(none\)"):
        client.predict({"series": ROWS, "kind": KINDS}, "none")
    with pytest.raises(errors.InvalidInputError, match="series"):
        client.predict({"kind": KINDS}, "toy")
    with pytest.raises(errors.InvalidInputError, match=r"signature takes \[-1,-1,2\]"):
        client.predict({"series": ROWS[..., :1], "kind": KINDS}, "toy")


@pytest.mark.slow
def test_saved_model_cli(toy, tmp_path):
    arrays = tmp_path / "inputs.npz"
    np.savez(arrays, series=ROWS, kind=KINDS)
    command = [str(Path(sys.executable).parent / "saved_model_cli"), "run", "--dir", str(toy / "2")]
    command += ["--tag_set", "serve", "--signature_def", "serving_default", "--outdir"]
    command += [str(tmp_path), "--inputs", f"series={arrays}[series];kind={arrays}[kind]"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "forecast.npy")
    np.testing.assert_allclose(found, forecast(ROWS, 2), rtol=1e-6)


@pytest.mark.slow
def test_a_c_program(toy, tmp_path):
    """Compiled against the headers and libraries of the TensorFlow that is installed."""
    import tensorflow as tf

    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "no C compiler: apt-get install gcc libc6-dev"
    source, program = tmp_path / "read.c", tmp_path / "read"
    source.write_text(C_PROGRAM)
    libraries = tf.sysconfig.get_lib()
    command = [compiler, str(source), "-o", str(program), "-I", tf.sysconfig.get_include()]
    command += [f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    loaded = tf.compat.v1.saved_model.load
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        signature = loaded(session, ["serve"], str(toy / "2")).signature_def["serving_default"]
    series, kind = (signature.inputs[name].name.split(":")[0] for name in ("series", "kind"))
    output, index = signature.outputs["forecast"].name.split(":")
    done = subprocess.run(
        [str(program), str(toy / "2"), series, kind, output, index],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    found = np.array(done.stdout.split(), dtype="float32").reshape(1, 3, 2)
    np.testing.assert_allclose(found, forecast(ROWS[:1], 2), rtol=1e-6)


def test_openvino(tmp_path):
    """Another engine than TensorFlow reads a recurrent model and computes the same."""
    import keras
    import openvino

    from keras_seq.export import saved_model

    series = keras.Input((6, 2), name="series")
    x = keras.layers.LSTM(4, return_sequences=True)(series)
    x = keras.layers.Bidirectional(keras.layers.GRU(3))(x)
    model = keras.Model({"series": series}, {"forecast": keras.layers.Dense(5)(x)})
    saved_model.write(model, tmp_path / "1", {"series": ROWS})
    # Where the processor has bfloat16 it would compute in that.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "1"), "CPU", exact)
    found = compiled({"series": ROWS})["forecast"]
    np.testing.assert_allclose(found, model({"series": ROWS})["forecast"], atol=1e-5)
