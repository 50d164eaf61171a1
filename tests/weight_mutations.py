"""Changed files of weights, each with what must come of it fixed beforehand."""

from __future__ import annotations

import argparse
import collections
import operator
import os
import pathlib
import pickle
import random
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RIGHT, REFUSED = 'right', 'refused'
# what no reader can see: any outcome but code that runs, and raw errors
UNSEEN = 'unseen'

Weights = dict[str, Any]
Write = Callable[[Path, Weights, random.Random, str, Path], str]


@dataclass(frozen=True)
class Mutation:
    """A change of a file.

    Attributes:
        write: ``(path, weights, random, spare, sentinel)`` writes the file, and returns
            the name that it changed or ``''``. ``spare`` is a name that the door does
            not use; code that runs makes the file ``sentinel``.
        expected: What must come of it.
        reader: What must come of it where a file is only read.
        needs_spare: Only for doors that leave some weight out.
        rounded: Values arrive in half precision.
    """

    write: Write
    expected: str
    reader: str = RIGHT
    needs_spare: bool = False
    rounded: bool = False


class Call:
    """Unpickling calls ``function(*arguments)``."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


class State:
    """Unpickling hands its state to a class of this module."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = str(sentinel)

    def __setstate__(self, state: dict) -> None:
        Path(state['sentinel']).touch()


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    'system': lambda s: Call(os.system, f'touch {s}'),
    'subprocess': lambda s: Call(subprocess.check_call, ['touch', str(s)]),
    'exec': lambda s: Call(exec, f'open({str(s)!r}, "w").close()'),
    'eval': lambda s: Call(eval, f'open({str(s)!r}, "w").close()'),
    'open': lambda s: Call(open, str(s), 'w'),
    'touch': lambda s: Call(pathlib.Path.touch, pathlib.Path(s)),
    'method': lambda s: Call(operator.methodcaller('touch'), pathlib.Path(s)),
    'state': State,
    'fromfile': lambda s: Call(torch.from_file, str(s), True, 4),
    'save': lambda s: Call(torch.save, 1, str(s)),
    'tofile': lambda s: Call(np.ndarray.tofile, np.ones(2), str(s)),
}


def at_the_top(payload: Any, weights: Weights) -> Any:
    return {'state_dict': weights, 'extra': payload}


def among_the_weights(payload: Any, weights: Weights) -> Any:
    return {'state_dict': {**weights, 'extra': payload}}


def in_meta(payload: Any, weights: Weights) -> Any:
    return {'meta': {'cfg': payload}, 'state_dict': weights}


def instead(payload: Any, weights: Weights) -> Any:
    return payload


def torch_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def torch_protocol_4(content: Any, path: Path) -> None:
    torch.save(content, path, pickle_protocol=4)


def legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def script(content: Any, path: Path) -> None:
    """An archive that says it is TorchScript."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/constants.pkl', b'')
        archive.writestr('a/data.pkl', pickle.dumps(content, protocol=2))


def carrying(name: str, place: Callable, format: Callable) -> Mutation:
    def write(path, weights, rng, spare, sentinel):
        small = {k: v for k, v in weights.items() if k == next(iter(weights))}
        # pickle alone cannot write all that torch can
        kept = weights if format in (torch_zip, torch_protocol_4, legacy) else small
        format(place(PAYLOADS[name](sentinel), kept), path)
        return ''

    return Mutation(write, REFUSED, REFUSED)


def stored(
    change: Callable[[Weights, random.Random, str], str],
    expected: str,
    reader: str = RIGHT,
    **more: Any,
) -> Mutation:
    """A state dict with something changed, in the format of torch."""

    def write(path, weights, rng, spare, sentinel):
        changed = dict(weights)
        name = change(changed, rng, spare)
        torch.save({'state_dict': changed}, path)
        return name

    return Mutation(write, expected, reader, **more)


def some(weights: Weights, rng: random.Random, fits: Callable = lambda v: True) -> str:
    return rng.choice([name for name in sorted(weights) if fits(weights[name])])


def with_value(function: Callable[[Tensor], Any], where: Callable = lambda v: True):
    def change(weights, rng, spare):
        name = some(weights, rng, where)
        weights[name] = function(weights[name].clone())
        return name

    return change


def with_spare(function: Callable[[Tensor], Any]):
    def change(weights, rng, spare):
        weights[spare] = function(torch.ones(2, 2))
        return ''

    return change


def poked(value: float):
    def function(tensor: Tensor) -> Tensor:
        tensor.view(-1)[tensor.numel() // 2] = value
        return tensor

    return function


def quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


def oblong(value: Tensor) -> bool:
    return value.dim() == 2 and value.shape[0] != value.shape[1]


def square(value: Tensor) -> bool:
    return value.dim() == 2 and value.shape[0] == value.shape[1]


def dropped(weights, rng, spare):
    name = some(weights, rng)
    del weights[name]
    return name


def renamed(weights, rng, spare):
    name = some(weights, rng)
    weights[f'{name}_old'] = weights.pop(name)
    return name


def numbered(weights, rng, spare):
    """A weight without a name."""
    weights[7] = torch.ones(2)
    return ''


def bytes_name(weights, rng, spare):
    weights[b'name'] = torch.ones(2)
    return ''


BAD_VALUES: dict[str, Callable[[Tensor], Any]] = {
    'nan': poked(torch.nan),
    'inf': poked(torch.inf),
    '-inf': poked(-torch.inf),
    'all nan': lambda v: v * torch.nan,
    'half inf': lambda v: v.half() + torch.inf,
    'bfloat nan': lambda v: v.bfloat16() * torch.nan,
    'int64': lambda v: (v * 100).long(),
    'int8': lambda v: (v * 100).to(torch.int8),
    'bool': lambda v: v > 0,
    'complex': lambda v: v.to(torch.complex64),
    'sparse': lambda v: v.to_sparse(),
    'meta': lambda v: v.to('meta'),
    'quantised': quantised,
    'list': lambda v: v.tolist(),
    'none': lambda v: None,
    'number': lambda v: 1.0,
    'dictionary': lambda v: {'data': v},
    'flat': lambda v: v.flatten()[:1],
    'longer': lambda v: torch.cat([v, v]),
    'cut': lambda v: v[..., :-1].clone(),
    'empty': lambda v: v[:0].clone(),
    'more axes': lambda v: v[None],
}
# read as such, and left out by those that do not use them
HARMLESS_LEFT_OUT = (
    *('nan', 'inf', 'int64', 'bool', 'complex', 'sparse', 'meta', 'quantised'),
    *('list', 'none', 'number', 'dictionary'),
)


def file_mutations() -> dict[str, Mutation]:
    """Bytes: how a file is written, torn or damaged."""

    def saved(format: Callable, wrap: Callable = lambda w: {'state_dict': w}) -> Write:
        def write(path, weights, rng, spare, sentinel):
            format(wrap(weights), path)
            return ''

        return write

    def tensors(content, path):
        save_file({k: v.contiguous() for k, v in content['state_dict'].items()}, path)

    def torn(format: Callable) -> Write:
        def write(path, weights, rng, spare, sentinel):
            format({'state_dict': weights}, path)
            whole = path.read_bytes()
            path.write_bytes(whole[: rng.randrange(len(whole) - 1)])
            return ''

        return write

    def flipped(format: Callable, inside: bool) -> Write:
        def write(path, weights, rng, spare, sentinel):
            format({'state_dict': weights}, path)
            whole = bytearray(path.read_bytes())
            place = rng.randrange(len(whole))
            if inside:
                with zipfile.ZipFile(path) as archive:
                    entry = rng.choice([e for e in archive.infolist() if e.file_size])
                start = entry.header_offset
                name, extra = struct.unpack('<HH', whole[start + 26 : start + 30])
                place = start + 30 + name + extra + rng.randrange(entry.file_size)
            whole[place] ^= 1 << rng.randrange(8)
            path.write_bytes(whole)
            return ''

        return write

    def deflated(path, weights, rng, spare, sentinel):
        torch.save({'state_dict': weights}, path)
        with zipfile.ZipFile(path) as archive:
            entries = {n: archive.read(n) for n in archive.namelist()}
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return ''

    def text(content: bytes) -> Write:
        def write(path, weights, rng, spare, sentinel):
            path.write_bytes(content)
            return ''

        return write

    def noise(path, weights, rng, spare, sentinel):
        path.write_bytes(rng.randbytes(rng.randrange(1, 5000)))
        return ''

    wrapped = {
        'bare': lambda w: w,
        'model': lambda w: {'model': w, 'epoch': 3},
        'module': lambda w: {'module': w},
        'ordered': lambda w: {'state_dict': collections.OrderedDict(w)},
        'arguments': lambda w: {
            'model': w,
            'args': argparse.Namespace(lr=1.0),
            'top_k_checkpoints': [(0.5, pathlib.Path('a.pth'))],
            'numpy': np.float64(1),
            'version': torch.__version__,
        },
        'parameters': lambda w: {k: nn.Parameter(v) for k, v in w.items()},
    }
    return {
        **{
            f'written {name}': Mutation(saved(torch_zip, wrap), RIGHT)
            for name, wrap in wrapped.items()
        },
        'written legacy': Mutation(saved(legacy), RIGHT),
        'written safetensors': Mutation(saved(tensors), RIGHT),
        'deflated': Mutation(deflated, RIGHT),
        'torn zip': Mutation(torn(torch_zip), REFUSED, REFUSED),
        'torn legacy': Mutation(torn(legacy), REFUSED, REFUSED),
        'torn safetensors': Mutation(torn(tensors), REFUSED, REFUSED),
        'flipped in an entry': Mutation(flipped(torch_zip, True), REFUSED, REFUSED),
        'flipped zip': Mutation(flipped(torch_zip, False), UNSEEN, UNSEEN),
        'flipped legacy': Mutation(flipped(legacy, False), UNSEEN, UNSEEN),
        'flipped safetensors': Mutation(flipped(tensors, False), UNSEEN, UNSEEN),
        'a page': Mutation(text(b'<html>404</html>'), REFUSED, REFUSED),
        'nothing': Mutation(text(b''), REFUSED, REFUSED),
        'noise': Mutation(noise, REFUSED, REFUSED),
        **{
            f'top {name}': Mutation(
                saved(torch_zip, lambda w, v=value: v), REFUSED, REFUSED
            )
            for name, value in (
                ('list', [torch.ones(2)]),
                ('tensor', torch.ones(2)),
                ('text', 'weights'),
                ('none', None),
                ('empty', {}),
                ('numbers', {'epoch': 3}),
            )
        },
    }


def mutations() -> dict[str, Mutation]:
    """All by name."""
    found = file_mutations()
    formats = (torch_zip, torch_protocol_4, legacy, plain_pickle, script)
    places = (at_the_top, among_the_weights, in_meta, instead)
    for number, name in enumerate(PAYLOADS):
        for offset, place in enumerate(places):
            format = formats[(number + offset) % len(formats)]
            if format in (plain_pickle, script) and place is not instead:
                format = torch_zip  # tensors in a plain pickle are code themselves
            label = f'code {name} {place.__name__} {format.__name__}'
            found[label] = carrying(name, place, format)
    for name, function in BAD_VALUES.items():
        found[f'value {name}'] = stored(with_value(function), REFUSED)
    for name in HARMLESS_LEFT_OUT:
        found[f'left out {name}'] = stored(
            with_spare(BAD_VALUES[name]), RIGHT, needs_spare=True
        )
    array = stored(with_value(lambda v: v.numpy()), REFUSED, REFUSED)
    return found | {
        'value array': array,
        'dropped': stored(dropped, REFUSED),
        'renamed': stored(renamed, REFUSED),
        'numbered': stored(numbered, REFUSED, REFUSED),
        'bytes name': stored(bytes_name, REFUSED, REFUSED),
        'transposed': stored(with_value(lambda v: v.t().clone(), oblong), REFUSED),
        'transposed square': stored(
            with_value(lambda v: v.t().clone(), square), UNSEEN
        ),
        'half': stored(
            lambda w, rng, spare: w.update({k: v.half() for k, v in w.items()}) or '',
            RIGHT,
            rounded=True,
        ),
        'double': stored(
            lambda w, rng, spare: w.update({k: v.double() for k, v in w.items()}) or '',
            RIGHT,
        ),
        'views': stored(with_value(lambda v: torch.cat([v[None], v[None]])[1]), RIGHT),
    }
