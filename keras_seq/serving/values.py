"""Values on their way: JSON and protocol buffers to arrays, and back."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from keras_seq.serving.failures import ServingError, invalid
from keras_seq.serving.loaded import Signature, TensorInfo, Values

_SHOWN = 200


# JSON to arrays -----------------------------------------------------------------------------------


def read_json(body: bytes) -> dict[str, Any]:
    """Parses the body of a request.

    Args:
        body: What the client sent.

    Returns:
        The object in it.

    Raises:
        ServingError: If it is no JSON, or no object.

    Example:
        >>> read_json(b'{"instances": [1, NaN]}')
        {'instances': [1, nan]}
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: {error.reason} at offset: {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {type(error).__name__}: {error}"[:_SHOWN]) from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be "
            "a string value."
        )
    return document


def inputs_of(
    document: dict[str, Any], signature: Signature, *, truths: bool = True
) -> tuple[Values, bool]:
    """Takes the inputs out of a request.

    Args:
        document: From `read_json`.
        signature: What they are for.
        truths: Whether there may be a true or false in it: among numbers NumPy would take it for
            one, and where there is none, numbers are read much faster.

    Returns:
        Name to array, and whether they came by rows (``instances``) and not by columns.

    Raises:
        ServingError: If they are missing, or are not of the signature's types.
    """
    rows, columns = "instances" in document, "inputs" in document
    if rows and columns:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    try:
        if rows:
            return _from_rows(document["instances"], signature.inputs, not truths), True
        if columns:
            return _from_columns(document["inputs"], signature.inputs, not truths), False
    except RecursionError:
        raise invalid("JSON Value: is nested too deeply") from None
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_rows(instances: Any, wanted: dict[str, TensorInfo], quick: bool) -> Values:
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {_shown(instances)} Excepting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {_shown(instances)} No values in 'instances' array")
    if not isinstance(instances[0], dict) and len(wanted) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    if not _is_object(instances[0]):
        for number, item in enumerate(instances):
            if _is_object(item):
                raise invalid(f"Expecting value/list but got object at item {number} of input list")
        name, info = next(iter(wanted.items()))
        return {name: _rows(instances, info, "", quick)}
    for number, item in enumerate(instances):
        if not _is_object(item):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for name in item:
            if name not in wanted:
                raise invalid(
                    f"Failed to process element: {number} key: {name} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                )
        if set(item) != set(wanted):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{_shown(item)} keys must be equal to: {','.join(sorted(wanted))}"
            )
    return {
        name: _rows([item[name] for item in instances], info, f"key: {name} ", quick)
        for name, info in wanted.items()
    }


def _rows(values: list[Any], info: TensorInfo, key: str, quick: bool) -> np.ndarray:
    """Rows of one input; an error says which row is to blame."""
    found = _quickly(values, info) if quick else None
    if found is not None:
        return found
    made: list[np.ndarray] = []
    for number, value in enumerate(values):
        between = " " if not key else f" {key}"
        blame = f"Failed to process element: {number}{between}of 'instances' list. Error: "
        try:
            row = _slowly(value, info)
        except ServingError as error:
            raise invalid(f"{blame}INVALID_ARGUMENT: {error}") from None
        if made and row.shape != made[0].shape:
            kind = "Expecting tensor size: " if row.size != made[0].size else "Expecting shape "
            before, now = (
                (str(made[0].size), str(row.size))
                if row.size != made[0].size
                else (str(list(made[0].shape)), str(list(row.shape)))
            )
            raise invalid(f"{blame}INVALID_ARGUMENT: {kind}{before} but got: {now}")
        made.append(row)
    return np.stack(made)


def _from_columns(columns: Any, wanted: dict[str, TensorInfo], quick: bool) -> Values:
    if not _is_object(columns):
        if len(wanted) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        columns = {next(iter(wanted)): columns}
    for name in wanted:
        if name not in columns:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(columns[name], info, quick) for name, info in wanted.items()}


def _array(value: Any, info: TensorInfo, quick: bool) -> np.ndarray:
    found = _quickly(value, info) if quick else None
    return _slowly(value, info) if found is None else found


def _quickly(value: Any, info: TensorInfo) -> np.ndarray | None:
    """Numbers that are all right, which is the rule; None where a closer look is needed."""
    dtype = info.dtype.as_numpy_dtype
    if not (info.dtype.is_floating or info.dtype.is_integer):
        return None
    try:
        found = np.array(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if found.size == 0:
        return None
    if info.dtype.is_floating:
        if found.dtype.kind not in "iuf":
            return None
        largest = float(info.dtype.max)
        finite = found[np.isfinite(found)] if found.dtype.kind == "f" else found
        if finite.size and np.abs(finite).max() > largest:
            return None
        return found.astype(dtype)
    if found.dtype.kind not in "iu":
        return None
    if found.min() < info.dtype.min or found.max() > info.dtype.max:
        return None
    return found.astype(dtype)


def _slowly(value: Any, info: TensorInfo) -> np.ndarray:
    """Value by value, with an error that says which one is wrong."""
    shape = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    flat: list[Any] = []
    _fill(value, 0, shape, info, flat)
    dtype = object if info.dtype == tf.string else info.dtype.as_numpy_dtype
    made = np.empty(len(flat), dtype)
    for i, item in enumerate(flat):
        made[i] = item
    return made.reshape(shape)


def _fill(value: Any, level: int, shape: list[int], info: TensorInfo, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        flat.append(_leaf(value, info))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for item in value:
        _fill(item, level + 1, shape, info, flat)


def _leaf(value: Any, info: TensorInfo) -> Any:
    dtype = info.dtype
    if dtype == tf.string:
        if isinstance(value, dict):
            return _decoded(value)
        if isinstance(value, str):
            # Half of a pair of surrogates may stand in JSON, and has no UTF-8.
            return value.encode("utf-8", "surrogatepass")
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif dtype.is_floating:
        if isinstance(value, int | float):
            if abs(value) > float(dtype.max) and abs(value) != float("inf"):
                raise invalid(
                    f"Cannot convert JSON value: {_shown(value)} to {_type_name(info)} without "
                    "loss of precision."
                )
            return float(value)
    elif dtype.is_integer:
        if isinstance(value, int) and dtype.min <= value <= dtype.max:
            return value
    else:
        raise ServingError(
            "UNIMPLEMENTED", f"Conversion of JSON Value: {_shown(value)} to type: {dtype.name}"
        )
    _type_error(value, info)


def _type_error(value: Any, info: TensorInfo) -> NoReturn:
    kinds = {
        type(None): "Null",
        bool: str(value),
        dict: "Object",
        list: "Array",
        str: "String",
        int: "Number",
        float: "Number",
    }
    raise invalid(
        f"JSON Value: {_shown(value)} Type: {kinds[type(value)]} is not of expected type: "
        f"{_type_name(info)}"
    )


def _type_name(info: TensorInfo) -> str:
    """The type's name in TensorFlow Serving's errors."""
    name: str = info.dtype.name
    return {"float32": "float", "float64": "double"}.get(name, name)


def _is_object(value: Any) -> bool:
    """An object that is no text in base64."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _decoded(value: dict[str, Any]) -> bytes:
    if _is_object(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"].rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _shown(value: Any) -> str:
    # Piece by piece: a wrong value may be as large as a body.
    text = ""
    try:
        for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
            text += piece[:_SHOWN]
            if len(text) > _SHOWN:
                break
    except RecursionError:
        text += " " * _SHOWN
    return text if len(text) <= _SHOWN else text[:_SHOWN].rstrip() + "..."


# Arrays to JSON -----------------------------------------------------------------------------------


def write_json(outputs: Values, *, rows: bool) -> bytes:
    """Writes the body of an answer.

    Args:
        outputs: Name to array.
        rows: Whether by rows (``predictions``), as the request was, or by columns (``outputs``).

    Returns:
        The JSON; one output goes without its name, texts named ``..._bytes`` in base64.

    Raises:
        ServingError: If rows are wanted and outputs differ in their number of rows.

    Example:
        >>> write_json({"y": np.array([[1.5], [2.0]])}, rows=True)
        b'{"predictions": [[1.5], [2.0]]}'
    """
    if rows:
        counts = {name: len(value) if value.ndim else None for name, value in outputs.items()}
        for name, count in counts.items():
            if count is None:
                raise invalid(f"Tensor name: {name} has no shape information ")
            first = next(iter(counts.values()))
            if count != first:
                raise invalid(
                    f"Tensor name: {name} has inconsistent batch size: {count} expecting: {first}"
                )
    plain = {name: _plain(name, value) for name, value in outputs.items()}
    answer: Any = plain
    if len(plain) == 1:
        answer = next(iter(plain.values()))
    elif rows:
        answer = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
    # Spaces as json.dumps puts them; NaN and Infinity stand as they do in TensorFlow Serving.
    return json.dumps({"predictions" if rows else "outputs": answer}).encode("utf-8")


def _plain(name: str, value: np.ndarray) -> Any:
    if value.dtype.kind not in "OSU":
        if value.dtype.kind not in "biuf":
            value = value.astype(np.float32)  # bfloat16 and its like
        return value.tolist()
    coded = name.endswith("_bytes")

    def text(item: Any) -> Any:
        if isinstance(item, list):
            return [text(each) for each in item]
        if coded:
            return {"b64": base64.b64encode(item).decode("ascii")}
        return item.decode("utf-8", "replace")

    return text(value.tolist())


# Protocol buffers ---------------------------------------------------------------------------------


def from_protos(protos: Any, signature: Signature, most_bytes: int) -> Values:
    """Reads the inputs of a gRPC request.

    Args:
        protos: Name to TensorProto.
        signature: What they are for.
        most_bytes: A tensor may not become larger than this: a few bytes can stand for a huge one.

    Returns:
        Name to array, in the order of the signature.

    Raises:
        ServingError: If a name, a type or a tensor is wrong.
    """
    for name in protos:
        if name not in signature.inputs and len(protos) == len(signature.inputs):
            raise invalid(
                f"input tensor alias not found in signature: {name}. Inputs expected to be in the "
                f"set {{{','.join(signature.inputs)}}}."
            )
    found: Values = {}
    for name in [*signature.inputs, *(name for name in protos if name not in signature.inputs)]:
        if name not in protos:
            continue
        proto, info = protos[name], signature.inputs.get(name)
        if info is None:
            found[name] = np.zeros(0)  # `check` will say that nobody asked for it
            continue
        if proto.dtype != info.dtype.as_datatype_enum:
            sent = "no type" if not proto.dtype else _dtype_name(proto.dtype)
            raise invalid(f"input {name} is {sent}, and the signature takes {info.dtype.name}")
        sizes = [dim.size for dim in proto.tensor_shape.dim]
        size = int(np.prod(sizes, dtype=object)) if sizes else 1
        width = 1 if info.dtype == tf.string else info.dtype.size
        if proto.tensor_shape.unknown_rank or min(sizes, default=0) < 0:
            raise invalid(f"input {name} has no shape that is known")
        if size * width > most_bytes:
            raise invalid(f"input {name} has {size} values: that is more than the server takes")
        try:
            found[name] = tf.make_ndarray(proto)
        except (ValueError, TypeError) as error:
            text = str(error).splitlines()[0] if str(error) else "its values do not fit its shape"
            raise invalid(f"input {name} is no tensor: {text}"[:_SHOWN]) from None
    return signature.check(found)


def _dtype_name(number: int) -> str:
    try:
        return tf.dtypes.as_dtype(number).name
    except TypeError:
        return f"type {number}"


def fill_proto(proto: Any, value: np.ndarray) -> None:
    """Writes an array into a TensorProto.

    Args:
        proto: An empty one.
        value: Numbers, truth values, or bytes.
    """
    if value.dtype.kind in "OSU":
        proto.dtype = tf.string.as_datatype_enum
        proto.string_val.extend(value.ravel().tolist())
    else:
        proto.dtype = tf.dtypes.as_dtype(value.dtype).as_datatype_enum
        proto.tensor_content = np.ascontiguousarray(value).tobytes()
    for size in value.shape:
        proto.tensor_shape.dim.add().size = size
