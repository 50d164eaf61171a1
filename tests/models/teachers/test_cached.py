"""CachedTeacher and its file: lookups equal what was written, misuse is refused."""

from __future__ import annotations

import copy
import zlib
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medic_mm.errors import FileError, UserError
from medic_mm.models.teachers import CachedTeacher, FrozenTeacher
from medic_mm.models.teachers.cache.file import Layout, RowWriter, read_cache

IMAGES, VIEWS, LENGTH, WIDTH = 5, 2, 4, 6
SHAPE = (IMAGES * VIEWS, 1 + LENGTH, WIDTH)
STATISTICS = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)


class PatchMeans(FrozenTeacher):
    """Something with the attributes of a teacher; never asked here."""

    def __init__(self) -> None:
        half = (0.5, 0.5, 0.5)
        super().__init__(nn.Conv2d(3, WIDTH, 8, 8), half, half, WIDTH, 8, 16)

    def load_weights(self) -> None:
        self.loaded = True


def make_tokens(dtype: torch.dtype = torch.float16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SHAPE, generator=generator).to(dtype)


def make_attention(dtype: torch.dtype = torch.float16) -> Tensor:
    """Rows of a softmax over class token and patches, without the class token."""
    generator = torch.Generator().manual_seed(1)
    logits = 6 * torch.randn(SHAPE[0], LENGTH, 1 + LENGTH, generator=generator)
    return logits.softmax(-1)[..., 1:].to(dtype)


def layout(dtype: str = 'float16', attention: bool = False) -> Layout:
    contents = {'tokens': SHAPE[1:]}
    if attention:
        contents['attention'] = (LENGTH, LENGTH)
    return Layout('the key', SHAPE[0], dtype, contents)


def write(
    path: Path, rows: list[int], dtype: str = 'float16', attention: bool = False
) -> Path:
    whole = dict(tokens=make_tokens(torch.float32))
    if attention:
        whole['attention'] = make_attention(torch.float32)
    layout(dtype, attention).create(path)
    with RowWriter(path, layout(dtype, attention)) as writer:
        for row in rows:
            writer.write([row], {name: part[[row]] for name, part in whole.items()})
    return path


@pytest.fixture
def cached(tmp_path: Path) -> CachedTeacher:
    teacher = CachedTeacher(PatchMeans(), cache_dir=str(tmp_path))
    path = write(tmp_path / 'all.safetensors', list(range(SHAPE[0])))
    teacher.attach(path, 'the key', VIEWS)
    return teacher


def samples(pairs: list[tuple[int, int]]) -> list[DataSample]:
    return [DataSample(metainfo=dict(sample_idx=i, view=v)) for i, v in pairs]


def look_up(teacher: CachedTeacher, data_samples: list | None, **kwargs):
    size = len(data_samples or [None])
    return teacher(torch.zeros(size, 3, 16, 16), *STATISTICS, data_samples, **kwargs)


@pytest.mark.parametrize('attention', [False, True])
@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_the_file_is_plain_safetensors(
    tmp_path: Path, dtype: str, attention: bool
) -> None:
    path = write(tmp_path / 'some.safetensors', [7, 0, 3], dtype, attention)
    assert layout(dtype, attention).is_of(path)
    assert not layout(dtype, not attention).is_of(path)
    stored = load_file(path)
    written = torch.zeros(SHAPE[0], dtype=torch.bool)
    written[[0, 3, 7]] = True
    assert torch.equal(stored['filled'], written)
    expected = make_tokens(getattr(torch, dtype)) * written[:, None, None]
    assert torch.equal(stored['tokens'], expected)
    assert ('attention' in stored) == attention
    if attention:
        expected = make_attention(getattr(torch, dtype)) * written[:, None, None]
        assert torch.equal(stored['attention'], expected)
    bytes_of = [
        stored[name][7].numpy().tobytes()
        for name in ('tokens', 'attention')[: 1 + attention]
    ]
    assert stored['checksums'][7] == zlib.crc32(b''.join(bytes_of))
    assert stored['checksums'][1] == 0


def test_two_writers_share_a_file(tmp_path: Path) -> None:
    path, tokens = tmp_path / 'shared.safetensors', make_tokens(torch.float32)
    looks = make_attention(torch.float32)
    both = layout('float32', attention=True)
    both.create(path)
    with RowWriter(path, both) as even, RowWriter(path, both) as odd:
        for writer, first in ((even, 0), (odd, 1)):
            rows = range(first, SHAPE[0], 2)
            writer.write(rows, dict(tokens=tokens[first::2], attention=looks[first::2]))
    table = read_cache(path, 'the key', in_memory=True)
    assert table.filled.all()
    assert torch.equal(table.contents['tokens'], tokens)
    assert torch.equal(table.contents['attention'], looks)


def test_queries_keys_and_values_have_a_place_in_the_format(tmp_path: Path) -> None:
    """A later teacher's; nothing in the file knows of tokens."""
    path, shape = tmp_path / 'qkv.safetensors', (3, 5, 2)
    three = Layout(
        'the key', 4, 'float32', dict.fromkeys(('query', 'key', 'value'), shape)
    )
    three.create(path)
    values = {name: torch.randn(2, *shape) for name in three.contents}
    with RowWriter(path, three) as writer:
        writer.write([3, 1], values)
    table = read_cache(path, 'the key', in_memory=False)
    assert list(table.contents) == ['query', 'key', 'value']
    for name, stored in table.contents.items():
        assert torch.equal(stored[[3, 1]], values[name])
    assert table.damaged(torch.tensor([1, 3])) == []


@pytest.mark.parametrize('in_memory_gb', [0.0, 2.0])
@pytest.mark.parametrize('name', ['tokens', 'attention'])
def test_a_damaged_row_is_named(tmp_path: Path, in_memory_gb: float, name: str) -> None:
    """A bit of one row: at the start in memory, else where the row is first read."""
    path = write(tmp_path / 'a.safetensors', list(range(SHAPE[0])), attention=True)
    _, starts, _ = layout(attention=True).header()
    row_bytes = load_file(path)[name][0].nbytes
    content = bytearray(path.read_bytes())
    content[starts[name] + 7 * row_bytes + 3] ^= 1
    path.write_bytes(content)
    teacher = CachedTeacher(PatchMeans(), attention=True, in_memory_gb=in_memory_gb)

    def use() -> None:
        teacher.attach(path, 'the key', VIEWS)
        look_up(teacher, samples([(3, 0), (2, 1)]))  # rows that are sound
        look_up(teacher, samples([(2, 1), (3, 1)]))

    words = r'checksums differ for image 3 view 1: remove .*a\.\* to fill'
    with pytest.raises(FileError, match=words):
        use()
    if not in_memory_gb:
        teacher.attach(path, 'the key', VIEWS)
        assert look_up(teacher, samples([(3, 0), (2, 1)])).cls_token.abs().sum() > 0


@pytest.mark.parametrize('in_memory_gb', [0.0, 2.0])
def test_attention_is_looked_up_too(tmp_path: Path, in_memory_gb: float) -> None:
    path = write(tmp_path / 'a.safetensors', list(range(SHAPE[0])), attention=True)
    teacher = CachedTeacher(PatchMeans(), attention=True, in_memory_gb=in_memory_gb)
    teacher.attach(path, 'the key', VIEWS)
    pairs = [(4, 1), (0, 0), (2, 1), (4, 1), (1, 0)]
    out = look_up(teacher, samples(pairs), attention=True)
    rows = [image * VIEWS + view for image, view in pairs]
    assert out.attention.dtype == torch.float32
    assert torch.equal(out.attention, make_attention()[rows].float())
    assert torch.equal(out.patch_tokens, make_tokens()[rows, 1:].float())
    assert look_up(teacher, samples(pairs)).attention is None


def test_a_file_of_the_key_without_attention_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.safetensors', [0])
    with pytest.raises(RuntimeError, match='has no attention'):
        CachedTeacher(PatchMeans(), attention=True).attach(path, 'the key', VIEWS)


@pytest.mark.parametrize('in_memory_gb', [0.0, 2.0])
def test_lookups_in_any_order(cached: CachedTeacher, in_memory_gb: float) -> None:
    cached.in_memory_gb = in_memory_gb
    cached.attach(cached.cache_dir / 'all.safetensors', 'the key', VIEWS)
    pairs = [(4, 1), (0, 0), (2, 1), (4, 1), (1, 0)]
    out = look_up(cached, samples(pairs))
    for row, (image, view) in enumerate(pairs):
        expected = make_tokens()[image * VIEWS + view].float()
        assert torch.equal(out.cls_token[row], expected[0])
        assert torch.equal(out.patch_tokens[row], expected[1:])
    assert out.patch_tokens.dtype == out.cls_token.dtype == torch.float32
    assert out.patch_tokens.is_contiguous()
    assert out.attention is None


def test_a_cache_in_memory_does_not_need_the_file(cached: CachedTeacher) -> None:
    (cached.cache_dir / 'all.safetensors').write_bytes(b'')
    out = look_up(cached, samples([(3, 1)]))
    assert torch.equal(out.cls_token[0], make_tokens()[7, 0].float())


def test_it_has_the_face_of_its_teacher_and_no_state(cached: CachedTeacher) -> None:
    teacher = cached.teacher
    for name in ('embed_dims', 'grid', 'native_grid', 'input_size', 'input_norm'):
        assert getattr(cached, name) == getattr(teacher, name)
    assert not cached.ready
    cached.init_weights()
    assert cached.ready
    assert cached.fingerprint() == teacher.fingerprint()
    assert teacher.loaded
    model = nn.Sequential(nn.Linear(2, 2), cached)
    assert list(model.state_dict()) == ['0.weight', '0.bias']
    assert len(list(model.parameters())) == 2
    assert copy.deepcopy(model)[1] is cached


def test_attention_is_refused(cached: CachedTeacher) -> None:
    with pytest.raises(ValueError, match='keeps no attention: set attention=True in'):
        look_up(cached, samples([(0, 0)]), attention=True)


def test_without_a_cache_it_names_the_hook(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match='TeacherCacheHook'):
        look_up(CachedTeacher(PatchMeans()), samples([(0, 0)]))


@pytest.mark.parametrize(
    'data_samples', [None, [DataSample(metainfo=dict(sample_idx=0))], [DataSample()]]
)
def test_missing_meta_keys(cached: CachedTeacher, data_samples: list | None) -> None:
    with pytest.raises(ValueError, match=r"meta_keys=\('sample_idx', 'view'\)"):
        look_up(cached, data_samples)


def test_images_that_are_not_in_the_cache(cached: CachedTeacher) -> None:
    with pytest.raises(RuntimeError, match='not among the 10 rows'):
        look_up(cached, samples([(0, 0), (IMAGES, 0)]))
    path = write(cached.cache_dir / 'gap.safetensors', [0, 1, 2])
    cached.attach(path, 'the key', VIEWS)
    look_up(cached, samples([(1, 0)]))
    with pytest.raises(RuntimeError, match='readable training images only'):
        look_up(cached, samples([(1, 0), (1, 1)]))


def test_torn_and_foreign_files_are_refused(cached: CachedTeacher) -> None:
    path = cached.cache_dir / 'all.safetensors'
    with pytest.raises(RuntimeError, match='has the key the key in place of other'):
        cached.attach(path, 'other', VIEWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RuntimeError, match='remove it to build it anew'):
        cached.attach(path, 'the key', VIEWS)


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, tokens = tmp_path / 'x.safetensors', make_tokens(torch.float32)[:2]
    layout().create(path)
    with RowWriter(path, layout()) as writer:
        with pytest.raises(ValueError, match='grid and embed_dims promise'):
            writer.write([0, 1], dict(tokens=tokens[:, 1:]))
        with pytest.raises(ValueError, match="set dtype='float32'"):
            writer.write([0, 1], dict(tokens=tokens * 1e5))
        with pytest.raises(ValueError, match='not finite'):
            writer.write([0, 1], dict(tokens=tokens * float('nan')))
        with pytest.raises(ValueError, match='laid out without attention'):
            writer.write([0, 1], dict(tokens=tokens, attention=make_attention()[:2]))
    assert not read_cache(path, 'the key', True).filled.any()


def test_missing_or_other_attention_is_refused(tmp_path: Path) -> None:
    path, tokens, looks = tmp_path / 'x.safetensors', make_tokens(), make_attention()
    layout(attention=True).create(path)
    with RowWriter(path, layout(attention=True)) as writer:
        for attention, words in (
            (None, 'returned no attention'),
            (looks[:1, 1:, 1:], r'attention of shape \(1, 3, 3\) where'),
            (looks[:1] * float('nan'), 'not finite'),
        ):
            given = {} if attention is None else dict(attention=attention)
            with pytest.raises(ValueError, match=words):
                writer.write([0], dict(tokens=tokens[:1], **given))
    table = read_cache(path, 'the key', True)
    assert not table.filled.any()
    assert not table.contents['tokens'].any()


def test_unknown_dtype() -> None:
    with pytest.raises(ValueError, match="dtype='int8'"):
        CachedTeacher(PatchMeans(), dtype='int8')


@pytest.mark.parametrize('value', [float('nan'), -1, True, None, '2'])
def test_refuses_a_size_that_is_not_a_number(value):
    with pytest.raises(UserError, match=f'in_memory_gb={value!r} of CachedTeacher'):
        CachedTeacher(PatchMeans(), in_memory_gb=value)
    CachedTeacher(PatchMeans(), in_memory_gb=float('inf'))


def test_a_file_of_other_contents_is_named(tmp_path):
    path = tmp_path / 'other.safetensors'
    for parts in (
        dict(tokens=torch.zeros(2, 1, 1)),
        dict(tokens=torch.zeros(2, 1, 1), filled=torch.zeros(3)),
    ):
        save_file(parts, path, metadata=dict(key='the key'))
        with pytest.raises(
            FileError, match=r'other\.safetensors is not a teacher cache'
        ):
            read_cache(path, 'the key', True)
