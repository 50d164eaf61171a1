"""From the bytes of an image file to RGB, the same for training and every tool.

What is decoded: the first frame, turned as its orientation tag (EXIF) asks. Palettes
are resolved, grey becomes three equal channels, CMYK is converted as Pillow does it,
transparency is dropped. Of 16 bits the high byte is kept. Signed or 32-bit integers and
floating point have no range that could be known, and are refused. A file that is cut
off is refused, too.

Pillow reads all formats. JPEG, the most common one, is decoded by OpenCV where that is
there, since it is faster; the pixels are equal. Needs no OpenMMLab.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from medic_mm.errors import FileError, MissingFileError

#: Decoding stops above so many pixels by default, where Pillow does.
MAX_PIXELS = 178_956_970

NO_IMAGE = 'not an image'
EMPTY = 'empty file'
DAMAGED = 'damaged or cut off'
TOO_LARGE = 'more pixels than max_pixels'
INTEGERS = 'signed or 32-bit integers'
FLOATS = 'floating point'
NO_RGB = 'no conversion to RGB'

#: Why a file has no image; processes pass a reason on by its place here.
REASONS = (NO_IMAGE, EMPTY, DAMAGED, TOO_LARGE, INTEGERS, FLOATS, NO_RGB)

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258  # tag of TIFF


class UnreadableImage(FileError):
    """A file without an image that can be used.

    Attributes:
        reason: One of :data:`REASONS`.
    """

    def __init__(self, message: str, reason: str = DAMAGED) -> None:
        super().__init__(message)
        self.reason = reason


def to_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image as RGB with 8 bits, turned upright, as training reads it.

    Args:
        image: Opened or made by Pillow; its file is read here if it was not yet.

    Raises:
        UnreadableImage: for a damaged file, or pixels that have no place in 0..255.
    """
    with _decoders_errors():
        image.load()
        return _as_rgb(_upright(image))


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, min_size: int | None = None
) -> np.ndarray:
    """RGB uint8 ``(H, W, 3)`` of an image file.

    Args:
        path: A file of this machine.
        max_pixels: Images of more pixels are refused before they are decoded.
        min_size: See :func:`decode_image`.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableImage: for a file without an image that can be used.
        FileError: where the machine does not let it be read; it names the cause.
    """
    with errors_of_file(path):
        return decode_image(Path(path).read_bytes(), max_pixels, min_size)


def decode_image(
    content: bytes,
    max_pixels: int = MAX_PIXELS,
    min_size: int | None = None,
    channels: str = 'rgb',
) -> np.ndarray:
    """uint8 ``(H, W, 3)`` of the bytes of an image file.

    Args:
        content: The whole file.
        max_pixels: Images of more pixels are refused before they are decoded.
        min_size: Where a format can be decoded at 1/2, 1/4 or 1/8 of its size at less
            cost (JPEG), take the smallest whose sides have so many pixels. None: whole.
        channels: ``'rgb'`` or ``'bgr'``.

    Raises:
        UnreadableImage: for bytes without an image that can be used.
    """
    if not content:
        raise UnreadableImage('the file is empty', EMPTY)
    size = _size_of_plain_jpeg(content)
    if size is not None:
        _require_size(size, max_pixels)
        pixels = _by_opencv(content, size, min_size, channels)
        if pixels is not None:
            return pixels
    with _decoders_errors(), _open(content, max_pixels) as image:
        if image.format in ('JPEG', 'MPO') and image.mode in ('L', 'RGB'):
            pixels = _by_opencv(content, image.size, min_size, channels)
            if pixels is not None:
                turn = _TURNS.get(_orientation(image))
                if turn is None:
                    return pixels
                return np.array(Image.fromarray(pixels).transpose(turn))
        image.load()
        pixels = np.asarray(_as_rgb(_upright(image)))
    return np.ascontiguousarray(pixels if channels == 'rgb' else pixels[..., ::-1])


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file after turning, by its header."""
    with Image.open(path) as image:
        width, height = image.size
        # 5 to 8 exchange the sides
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextlib.contextmanager
def errors_of_file(path: str | Path, what: str = 'image') -> Iterator[None]:
    """Errors while a file is read and decoded, each with its name and cause.

    Args:
        path: The file.
        what: What it is, for messages.

    Raises:
        MissingFileError: if there is no such file.
        UnreadableImage: as it came, with the file's name in front.
        FileError: for what the machine refuses: no permission, too many open files,
            a fault of the disk.
    """
    try:
        yield
    except UnreadableImage as error:
        raise UnreadableImage(
            f'the image {path} cannot be read: {error}', error.reason
        ) from error
    except FileNotFoundError as error:
        raise MissingFileError(f'the {what} {path} does not exist') from error
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, 'this is not a fault of the file')
        raise FileError(
            f'the {what} {path} cannot be read ({error.strerror or error}): {advice}'
        ) from error


_ADVICE = {
    errno.EMFILE: 'raise the limit of open files (ulimit -n), or use fewer workers',
    errno.ENFILE: 'the machine has too many open files: use fewer workers',
    errno.EACCES: 'let this user read it, or move it out of the data',
    errno.EPERM: 'let this user read it, or move it out of the data',
    errno.EISDIR: 'it is a folder',
    errno.EIO: 'the disk or the network file system has a fault',
}


@contextlib.contextmanager
def _decoders_errors() -> Iterator[None]:
    """What decoders raise for a broken file, as :class:`UnreadableImage`."""
    try:
        yield
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            'it is not an image of a known format', NO_IMAGE
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(_first_line(error), TOO_LARGE) from error
    # a broken file can end in nearly any error of a decoder
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the machine, not of the file
        raise UnreadableImage(_first_line(error), DAMAGED) from error


@contextlib.contextmanager
def _open(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The image by its header alone, refused where it is too large."""
    allowed = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # ours is looked at instead
    try:
        image = Image.open(io.BytesIO(content))
    finally:
        Image.MAX_IMAGE_PIXELS = allowed
    with image:
        _require_size(image.size, max_pixels)
        yield image


def _require_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise UnreadableImage(
            f'{size[0]} x {size[1]} are more pixels than max_pixels={max_pixels}',
            TOO_LARGE,
        )


def _size_of_plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Width and height by the header of a JPEG without tags; None for all else.

    Pillow's own reading of the header takes a fifth of the time of a small image.
    """
    place = 2 if content[:2] == b'\xff\xd8' else len(content)
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # start of frame: depth, height, width, parts
            depth, parts = content[place + 4], content[place + 9]
            height = int.from_bytes(content[place + 5 : place + 7], 'big')
            width = int.from_bytes(content[place + 7 : place + 9], 'big')
            plain = depth == 8 and parts in (1, 3) and height and width
            return (width, height) if plain else None
        # APP1 holds tags; frames of other kinds and data are left to Pillow
        if marker == 0xE1 or not (
            0xE0 <= marker <= 0xFE or marker in (0xDB, 0xC4, 0xDD)
        ):
            return None
        place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return None


def _by_opencv(
    content: bytes, size: tuple[int, int], min_size: int | None, channels: str
) -> np.ndarray | None:
    """Pixels of a whole JPEG file, not turned; None where OpenCV is no help."""
    # OpenCV takes files that are cut off; a whole one has its end mark at the end
    whole = content.find(b'\xff\xd9', max(0, len(content) - 64)) >= 0
    cv2 = _opencv()
    if not whole or cv2 is None:
        return None
    flag = cv2.IMREAD_COLOR
    for share in (2, 4, 8) if min_size is not None else ():
        if min(size) // share >= min_size:
            flag = getattr(cv2, f'IMREAD_REDUCED_COLOR_{share}')
    try:
        pixels = cv2.imdecode(
            np.frombuffer(content, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        return None
    if pixels is None or channels == 'bgr':
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format  # decides how integers are read
    return turned


def _orientation(image: Image.Image) -> int:
    """The orientation tag, 1 (upright) without one; a broken one is not looked at."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    # broken tags end in many errors, and the pixels are whole
    except Exception:
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == 'RGB':
        return image
    if mode == 'F':
        raise UnreadableImage(
            'its pixels are floating point, whose range is not known: convert it to 8 '
            'or 16 bits',
            FLOATS,
        )
    if mode.startswith('I'):
        return Image.fromarray(_high_byte(image)).convert('RGB')
    if mode in ('RGBa', 'La'):  # multiplied by their transparency
        image = image.convert(mode[:-1] + 'A')
    try:
        return image.convert('RGB')
    except ValueError as error:
        raise UnreadableImage(f'its pixels are {mode}, not RGB', NO_RGB) from error


def _high_byte(image: Image.Image) -> np.ndarray:
    """The upper 8 of 16 bits, uint8 ``(H, W)``."""
    # Pillow gives 16 bits of these formats as 32-bit integers up to 65535
    if image.mode == 'I' and image.format not in ('PPM', 'PNG'):
        raise UnreadableImage(
            'its pixels are signed or 32-bit integers, whose range is not known: '
            'convert it to 8 or 16 bits',
            INTEGERS,
        )
    bits = getattr(image, 'tag_v2', {}).get(_BITS_PER_SAMPLE, (16,))[0]
    shift = bits - 8 if 8 < bits < 16 else 8  # TIFF has 12 bits as well
    return (np.asarray(image) >> shift).astype(np.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
