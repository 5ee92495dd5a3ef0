"""Linear recurrences beside a plain loop: values, gradients, masks, states, steps, weights."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose

from keras_seq import layers
from keras_seq.layers import linear_recurrence
from keras_seq.layers.linear_recurrence import linear_scan
from keras_seq.layers.steps import Step, search_shapes, step_shapes


def loop(a, b, first, reverse=False):
    """The recurrence over axis 1, step by step, in 64 bits."""
    a = np.broadcast_to(a, b.shape)
    found, h = np.zeros(b.shape, np.result_type(a.dtype, np.float64)), first
    for t in range(b.shape[1])[:: -1 if reverse else 1]:
        h = a[:, t] * h + b[:, t]
        found[:, t] = h
    return found


def tf_loop(a, b, h, reverse):
    """The same by operations of TensorFlow, whose gradients it derives."""
    found = []
    for t in range(b.shape[1])[:: -1 if reverse else 1]:
        h = a[:, t] * h + b[:, t]
        found.append(h)
    return tf.stack(found[::-1] if reverse else found, axis=1)


def drawn(rng, steps, kind=np.float32, shape=(4,)):
    a = rng.uniform(0, 1, (3, steps, *shape)).astype(kind)
    b = rng.normal(size=(3, steps, *shape)).astype(kind)
    return a, b, rng.normal(size=(3, *shape)).astype(kind)


def halves(z):
    return z.real, z.imag


# ------------------------------------------------------------------------------------ the scan


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 15, 16, 17, 100, 256, 300])
def test_equals_a_loop(steps, reverse):
    a, b, first = drawn(np.random.default_rng(steps), steps)
    assert_allclose(
        linear_scan(a, b, first, reverse=reverse), loop(a, b, first, reverse), atol=2e-6
    )
    assert_allclose(linear_scan(a, b, reverse=reverse), loop(a, b, 0, reverse), atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis_and_decays_that_broadcast(axis):
    a, b, first = drawn(np.random.default_rng(0), 20, shape=(2,))
    a = a[:1, :, :1]
    expected = loop(a, b, first)
    place = axis % 3
    moved = np.moveaxis(b, 1, place)
    state = np.moveaxis(first[:, None], 1, place).squeeze(place)
    found = linear_scan(np.moveaxis(a, 1, place), moved, state, axis=axis)
    assert_allclose(np.moveaxis(found, place, 1), expected, atol=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [5, 37, 300])
def test_complex_numbers_are_pairs(steps, reverse):
    rng = np.random.default_rng(steps)
    draw = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)  # noqa: E731
    a, b, first = draw(2, steps, 3), draw(2, steps, 3), draw(2, 3)
    a = a / np.abs(a) * rng.uniform(0.5, 1, a.shape)
    real, imaginary = linear_scan(halves(a), halves(b), halves(first), reverse=reverse)
    found = np.asarray(real) + 1j * np.asarray(imaginary)
    assert_allclose(found, loop(a, b, first, reverse), atol=1e-12)


@pytest.mark.parametrize(
    ("reverse", "length", "jit_compile"),
    [(False, 40, False), (True, 40, False), (False, None, False), (True, None, True)],
)
def test_gradients_equal_those_of_a_loop(reverse, length, jit_compile):
    rng = np.random.default_rng(1)
    given = drawn(rng, 40, np.float64)
    weights = rng.normal(size=given[1].shape)
    batch = 3 if length else None
    shapes = [(batch, length, 4), (batch, length, 4), (batch, 4)]

    @tf.function(
        input_signature=[tf.TensorSpec(s, tf.float64) for s in shapes], jit_compile=jit_compile
    )
    def ours(a, b, h):
        with tf.GradientTape() as tape:
            tape.watch([a, b, h])
            found = linear_scan(a, b, h, reverse=reverse)
            total = tf.reduce_sum(tf.sin(found) * weights)
        return tape.gradient(total, [a, b, h])

    with tf.GradientTape() as tape:
        a, b, h = (tf.constant(x) for x in given)
        tape.watch([a, b, h])
        total = tf.reduce_sum(tf.sin(tf_loop(a, b, h, reverse)) * weights)
    for found, expected in zip(ours(*given), tape.gradient(total, [a, b, h]), strict=True):
        assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_complex_gradients_by_differences(reverse):
    rng = np.random.default_rng(2)
    given = [tf.constant(rng.normal(size=s) * 0.6) for s in [(2, 19, 3)] * 4 + [(2, 3)] * 2]
    weights = rng.normal(size=(2, 2, 19, 3))

    def total(a, ai, b, bi, h, hi):
        found = linear_scan((a, ai), (b, bi), (h, hi), reverse=reverse)
        return sum(tf.reduce_sum(tf.sin(x) * w) for x, w in zip(found, weights, strict=True))

    with tf.GradientTape() as tape:
        tape.watch(given)
        value = total(*given)
    slopes = tape.gradient(value, given)
    for i, slope in enumerate(slopes):
        way = tf.constant(rng.normal(size=given[i].shape))
        ahead, behind = (
            total(*given[:i], given[i] + size * way, *given[i + 1 :]) for size in (1e-5, -1e-5)
        )
        assert_allclose((ahead - behind) / 2e-5, tf.reduce_sum(slope * way), rtol=1e-6)


@pytest.mark.parametrize("a", [0.0, 1e-30, 1e-4, 0.5, 0.999, 0.9999999, 1.0])
def test_4096_steps_of_any_decay(a):
    rng = np.random.default_rng(3)
    b = rng.normal(size=(1, 4096, 2)).astype("float32")
    decays = np.full_like(b, a)
    with tf.GradientTape() as tape:
        x = tf.constant(decays)
        tape.watch(x)
        found = linear_scan(x, b)
        total = tf.reduce_sum(found[:, -1])
    expected = loop(decays.astype("float64"), b.astype("float64"), 0)
    assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    # d h[T] / d a[t] = a ** (T - t) * h[t - 1]
    before = np.pad(expected, [(0, 0), (1, 0), (0, 0)])[:, :-1]
    slopes = float(np.float32(a)) ** np.arange(4096.0)[::-1, None] * before
    assert_allclose(tape.gradient(total, x), slopes, atol=1e-5 * max(1, np.abs(slopes).max()))


def test_mixed_decays_of_4096_steps():
    """Products of decays are zero soon here, and the states are not."""
    rng = np.random.default_rng(4)
    a = rng.choice([0.0, 1e-20, 0.5, 1.0, 0.99999], size=(2, 4096, 3)).astype("float32")
    b = rng.normal(size=a.shape).astype("float32")
    expected = loop(a.astype("float64"), b.astype("float64"), 0)
    assert_allclose(linear_scan(a, b), expected, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_other_backends_take_the_scan_of_keras(monkeypatch, reverse):
    a, b, first = drawn(np.random.default_rng(5), 21)
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    monkeypatch.delattr(linear_recurrence, "_chunked_scan")
    assert_allclose(
        linear_scan(a, b, first, reverse=reverse), loop(a, b, first, reverse), atol=2e-6
    )
    assert_allclose(linear_scan(a, b, reverse=reverse), loop(a, b, 0, reverse), atol=2e-6)
    z = b + 1j * a
    found = linear_scan((a / 2, a / 2), halves(z), halves(z[:, 0]), reverse=reverse)
    expected = loop(a / 2 + 0.5j * a, z, z[:, 0], reverse)
    assert_allclose(np.asarray(found[0]) + 1j * np.asarray(found[1]), expected, atol=2e-6)


def test_a_pair_and_a_single_tensor():
    x = np.ones((1, 2, 3), "float32")
    with pytest.raises(ValueError, match="'a': 2, 'b': 1"):
        linear_scan((x, x), x)


# ---------------------------------------------------------------------- layers: an independent loop

D = 3


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_step(layer):
    """One step of a MinGRU by NumPy, and the states before the first."""
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())

    def step(x, h):
        gate, new = np.split(x @ kernel + bias, 2, axis=-1)
        h = (1 - sigmoid(gate)) * h + sigmoid(gate) * new
        return h, h

    return step


def space_step(layer):
    """One step of a state space by complex numbers and powers of matrices, as NumPy has them."""
    named = {w.path.rpartition("/")[2]: np.asarray(w, "float64") for w in layer.weights}
    turning = layer.initialization == "lin"
    eigen = -np.exp(named["log_decay"]) + (1j * named["frequency"] if turning else 0)
    length = np.exp(named["log_step"])[:, None]
    decay = np.exp(length * eigen)
    drive = (decay - 1) / eigen
    readout = named["readout"][0] + (1j * named["readout"][1] if turning else 0)

    def step(x, h):
        parts = np.split(h, 2, axis=-1) if turning else [h, 0]
        s = decay * (parts[0] + 1j * parts[1]) + drive * x[:, :, None]
        y = 2 * (readout * s).real.sum(-1) + named["skip"] * x
        if layer.units is not None:
            y = y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) / 2
            y = y @ named["kernel"] + named["bias"]
        return y, np.concatenate([s.real, s.imag], -1) if turning else s.real

    return step


KINDS = {
    "gru": (functools.partial(layers.MinGRU, 4), gru_step, (4,)),
    "space": (functools.partial(layers.DiagonalStateSpace, 4, 6), space_step, (D, 6)),
    "space_bare": (functools.partial(layers.DiagonalStateSpace, None, 2), space_step, (D, 2)),
    "space_real": (
        functools.partial(layers.DiagonalStateSpace, 4, 3, initialization="real"),
        space_step,
        (D, 3),
    ),
}


def made(kind, **options):
    """A layer with weights that are not zero, its step, and the shape of its state."""
    keras.utils.set_random_seed(3)
    build, step, shape = KINDS[kind]
    layer = build(**options)
    layer.build((None, None, D))
    rng = np.random.default_rng(6)
    layer.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer, step(layer), shape


def by_steps(step, x, h, mask=None, backwards=False):
    """Outputs and last state as Keras's recurrent layers give them."""
    outputs, y = [], None
    for t in range(x.shape[1])[:: -1 if backwards else 1]:
        new, after = step(x[:, t], h)
        y = np.zeros_like(new) if y is None else y
        real = np.ones(len(x), bool) if mask is None else mask[:, t]
        y = np.where(real[:, None], new, y)
        h = np.where(real.reshape(-1, *[1] * (h.ndim - 1)), after, h)
        outputs.append(y)
    return np.stack(outputs, axis=1), h


def masks(steps):
    rng = np.random.default_rng(7)
    holes = rng.random((5, steps)) < 0.5
    holes[0], holes[1] = True, False
    return {"none": None, "end": np.arange(steps) < np.array([[steps], [0], [1], [3], [4]]),
            "holes": holes}  # fmt: skip


@pytest.mark.parametrize(("steps", "backwards"), [(6, False), (64, True), (150, False)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_layer_equals_its_steps(kind, steps, backwards):
    options = {"return_sequences": True, "return_state": True, "go_backwards": backwards}
    layer, step, shape = made(kind, **options)
    rng = np.random.default_rng(8)
    x, first = rng.normal(size=(5, steps, D)), rng.normal(size=(5, *shape))
    for mask, begin in itertools.product(masks(steps).values(), (first, None)):
        given = x.astype("float32")
        if mask is not None:
            given[~mask] = np.nan  # nothing of it may be seen
        found, last = layer(
            given, mask=mask, initial_state=None if begin is None else begin.astype("float32")
        )
        start = np.zeros_like(first) if begin is None else begin
        expected, state = by_steps(step, x, start, mask, backwards)
        assert_allclose(found, expected, atol=1e-5)
        assert_allclose(last, state, atol=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_last_output_alone(kind):
    layer, step, shape = made(kind)
    x = np.random.default_rng(9).normal(size=(5, 20, D))
    for mask in masks(20).values():
        expected = by_steps(step, x, np.zeros((5, *shape)), mask)[0][:, -1]
        assert_allclose(layer(x.astype("float32"), mask=mask), expected, atol=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_step_after_step(kind):
    layer, _, shape = made(kind, return_sequences=True)
    x = np.random.default_rng(10).normal(size=(2, 200, D)).astype("float32")
    whole, step = layer(x), Step(layer)
    assert step_shapes(layer, 8) == {"hidden": shape}
    go_on = tf.function(lambda x, state: step(x, {"hidden": state}, tf.zeros(2, tf.int32)))
    state, found = tf.zeros((2, *shape)), []
    for t in range(x.shape[1]):
        y, states = go_on(x[:, t : t + 1], state)
        state = states["hidden"]
        found.append(y[:, 0])
    assert_allclose(np.stack(found, axis=1), whole, atol=1e-6 if kind == "gru" else 1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_step_of_a_search(kind):
    layer, _, shape = made(kind, return_sequences=True)
    rng = np.random.default_rng(11)
    x, state = rng.normal(size=(2, 3, D)), rng.normal(size=(2, 3, *shape))
    x, state = x.astype("float32"), state.astype("float32")
    assert search_shapes(layer, 8, 3) == {"hidden": ((3, *shape), True)}
    y, after = Step(layer, search=True)(x, {"hidden": state}, np.array([0, 0]))
    for k in range(3):
        one, alone = Step(layer)(x[:, k : k + 1], {"hidden": state[:, k]}, np.array([0, 0]))
        assert_allclose(y[:, k], one[:, 0], atol=1e-6)
        assert_allclose(after["hidden"][:, k], alone["hidden"], atol=1e-6)


def test_backwards_there_is_no_step():
    for kind in ("gru", "space"):
        layer, *_ = made(kind, go_backwards=True)
        with pytest.raises(ValueError, match="reads from the end"):
            step_shapes(layer, 8)


@pytest.mark.parametrize(
    ("kind", "jit_compile"),
    [
        ("gru", False),
        ("gru", True),
        ("space", False),
        ("space_real", False),
        pytest.param("space", True, marks=pytest.mark.slow),
    ],
)
def test_gradients_in_a_graph_with_open_lengths(kind, jit_compile):
    """Eagerly the length is known, in the graph it is not: two ways through the scan."""
    layer, *_ = made(kind, return_sequences=True)
    x = np.random.default_rng(12).normal(size=(5, 150, D)).astype("float32")
    mask = masks(150)["holes"]

    def gradients(x, mask):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(tf.sin(layer(x, mask=mask, training=True)))
        return [total, *tape.gradient(total, [x, *[v.value for v in layer.trainable_variables]])]

    spec = [tf.TensorSpec((None, None, D)), tf.TensorSpec((None, None), tf.bool)]
    graph = tf.function(gradients, input_signature=spec, jit_compile=jit_compile)
    for found, expected in zip(graph(x, mask), gradients(x, mask), strict=True):
        assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", list(KINDS))
def test_gradients_by_differences(kind):
    layer, *_ = made(kind, return_sequences=True, dtype="float64")
    rng = np.random.default_rng(13)
    x, mask = tf.constant(rng.normal(size=(5, 70, D))), masks(70)["holes"]
    variables = layer.trainable_variables
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.sin(layer(x, mask=mask)))
    for variable, slope in zip(variables, tape.gradient(total, variables), strict=True):
        start, way = np.array(variable), rng.normal(size=variable.shape)
        totals = []
        for size in (1e-5, -1e-5):
            variable.assign(start + size * way)
            totals.append(tf.reduce_sum(tf.sin(layer(x, mask=mask))))
        variable.assign(start)
        by_size = (totals[0] - totals[1]) / 2e-5
        assert_allclose(by_size, tf.reduce_sum(slope * way), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["gru", "space_bare"])
def test_4096_steps(kind):
    """Gates that are all but shut and all but open, and the shortest and longest steps of time."""
    layer, _, shape = made(kind, return_sequences=True)
    step = KINDS[kind][1]
    if kind == "gru":
        layer.bias.assign([-16.0, 90.0, -3.0, 16.0, 0.1, 0.1, 0.1, 0.1])
    else:
        layer.log_step.assign(np.log([1e-4, 0.01, 2.0]))
    x = np.random.default_rng(14).normal(size=(1, 4096, D)).astype("float32")
    with tf.GradientTape() as tape:
        y = layer(x)
        total = tf.reduce_mean(tf.square(y))
    expected, _ = by_steps(step(layer), x.astype("float64"), np.zeros((1, *shape)))
    assert_allclose(y, expected, atol=2e-5)
    for slope in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(slope).all()


def test_frequencies_and_decays_it_starts_with():
    space = layers.DiagonalStateSpace(states=8)
    space.build((None, None, 200))
    assert_allclose(space.frequency[5], np.pi * np.arange(4), rtol=1e-6)
    assert_allclose(np.exp(space.log_decay), 0.5, rtol=1e-6)
    lengths = np.exp(space.log_step)
    assert lengths.min() > 0.001 and lengths.max() < 0.1
    assert 0.005 < np.median(lengths) < 0.02  # evenly in the logarithm: about 0.01
    real = layers.DiagonalStateSpace(states=3, initialization="real")
    real.build((None, None, 2))
    assert_allclose(np.exp(real.log_decay), [[1, 2, 3]] * 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_sixteen_bits(kind, dtype):
    """States are summed up in 32 bits: after 2,000 steps they are as near as after one."""
    wide, *_ = made(kind, return_sequences=True)
    narrow, *_ = made(kind, return_sequences=True, return_state=True, dtype=dtype)
    x = 0.3 * np.random.default_rng(15).normal(size=(2, 2000, D)).astype("float32")
    found, last = narrow(x)
    name = dtype.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(found.dtype) == name
    assert keras.backend.standardize_dtype(last.dtype) == name
    assert_allclose(np.asarray(found, "float32"), wide(x), atol=0.04, rtol=0.02)


@pytest.mark.parametrize("kind", list(KINDS))
def test_both_ways_saved_and_loaded(kind, tmp_path):
    x = keras.Input((None, D))
    mask = keras.Input((None,), dtype="bool")
    layer, *_ = made(kind, return_sequences=True)
    y = keras.layers.Bidirectional(layer)(x, mask=mask)
    model = keras.Model([x, mask], y)
    assert model.output.shape == (None, None, 2 * (3 if kind == "space_bare" else 4))
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    data = np.random.default_rng(16).normal(size=(5, 20, D)).astype("float32")
    given = [data, masks(20)["end"]]
    expected = np.asarray(model(given))
    assert_allclose(again(given), expected, atol=1e-6)
    both = again.layers[-1]
    backward, step, shape = both.backward_layer, KINDS[kind][1], KINDS[kind][2]
    assert backward.go_backwards
    found, _ = by_steps(step(backward), data, np.zeros((5, *shape)), given[1], backwards=True)
    half = expected.shape[-1] // 2
    assert_allclose(expected[:, :, half:], found[:, ::-1], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.MinGRU(0), "units is 0"),
        (lambda: layers.DiagonalStateSpace(4, 0), "states 0"),
        (lambda: layers.DiagonalStateSpace(4, 5), "take 6"),
        (lambda: layers.DiagonalStateSpace(4, initialization="legs"), "'legs'"),
        (lambda: layers.DiagonalStateSpace(4, min_step=0.2), "min_step is 0.2"),
    ],
)
def test_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
