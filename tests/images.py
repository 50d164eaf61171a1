"""Small image files of every mode and depth, and damaged ones, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112


def picture(height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise, uint8 ``(H, W, 3)``."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([rows * 7, columns * 5, (rows + columns) * 3], -1) % 200
    return (waves + random.integers(0, 55, (height, width, 3))).astype(np.uint8)


def encode(image: Image.Image, kind: str, **settings) -> bytes:
    """Bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits: grey ``(H, W)``, or grey + alpha, RGB, RGBA ``(H, W, C)``."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack('>IIBBBBB', *pixels.shape[1::-1], 16, kind, 0, 0, 0)
    rows = pixels.astype('>u2').reshape(len(pixels), -1)
    raw = b''.join(b'\0' + row.tobytes() for row in rows)
    return (
        b'\x89PNG\r\n\x1a\n'
        + _chunk(b'IHDR', header)
        + _chunk(b'IDAT', zlib.compress(raw))
        + _chunk(b'IEND', b'')
    )


def huge_png(side: int = 30_000) -> bytes:
    """A small PNG file of ``side`` x ``side`` black pixels."""
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = bytes(1 + 3 * side)
    data = b''.join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    return (
        b'\x89PNG\r\n\x1a\n'
        + _chunk(b'IHDR', header)
        + _chunk(b'IDAT', data)
        + _chunk(b'IEND', b'')
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack('>I', zlib.crc32(name + data))
    return struct.pack('>I', len(data)) + name + data + checksum


def zoo() -> dict[str, tuple[bytes, np.ndarray | None]]:
    """File name to its bytes and its right pixels, RGB uint8 ``(H, W, 3)``.

    None where the file is not without loss; there Pillow's own plain reading is right.
    """
    rgb = picture()
    image = Image.fromarray(rgb)
    grey = np.asarray(image.convert('L'))
    alpha = np.full((*grey.shape, 1), 90, np.uint8)
    wide = grey.astype(np.uint16) << 8 | 0x9F  # rounding up would be seen
    wide_rgb = rgb.astype(np.uint16) << 8 | 0x9F
    three = np.repeat(grey[..., None], 3, -1)
    black_white = np.where(three > 127, 255, 0).astype(np.uint8)
    palette = image.quantize(16, dither=Image.Dither.NONE)
    in_palette = np.asarray(palette.convert('RGB'))
    rgba = Image.fromarray(np.concatenate([rgb, alpha], -1))
    la = Image.fromarray(np.concatenate([grey[..., None], alpha], -1))
    cmyk = image.convert('CMYK')
    found: dict[str, tuple[bytes, np.ndarray | None]] = {
        'rgb.png': (encode(image, 'PNG'), rgb),
        'rgb.bmp': (encode(image, 'BMP'), rgb),
        'rgb.ppm': (encode(image, 'PPM'), rgb),
        'rgb.tif': (encode(image, 'TIFF'), rgb),
        'packed.tiff': (encode(image, 'TIFF', compression='tiff_lzw'), rgb),
        'rgb.webp': (encode(image, 'WEBP', lossless=True), rgb),
        'grey.png': (encode(Image.fromarray(grey), 'PNG'), three),
        'grey.pgm': (encode(Image.fromarray(grey), 'PPM'), three),
        'bits.png': (encode(Image.fromarray(grey > 127), 'PNG'), black_white),
        'bits.pbm': (encode(Image.fromarray(grey > 127), 'PPM'), black_white),
        'palette.png': (encode(palette, 'PNG'), in_palette),
        'clear.png': (encode(palette, 'PNG', transparency=0), in_palette),
        'palette.gif': (encode(palette, 'GIF'), in_palette),
        'rgba.png': (encode(rgba, 'PNG'), rgb),
        'rgba.tif': (encode(rgba, 'TIFF'), rgb),
        'la.png': (encode(la, 'PNG'), three),
        'grey16.png': (png16(wide), three),
        'la16.png': (png16(np.stack([wide, wide], -1)), three),
        'rgb16.png': (png16(wide_rgb), rgb),
        'rgba16.png': (png16(np.concatenate([wide_rgb, wide_rgb[..., :1]], -1)), rgb),
        'grey16.tif': (encode(Image.fromarray(wide), 'TIFF'), three),
        'grey16.pgm': (encode(Image.fromarray(wide), 'PPM'), three),
        'cmyk.tif': (encode(cmyk, 'TIFF'), np.asarray(cmyk.convert('RGB'))),
        'cmyk.jpg': (encode(cmyk, 'JPEG'), None),
        'grey.jpg': (encode(Image.fromarray(grey), 'JPEG'), None),
        'progressive.jpeg': (encode(image, 'JPEG', progressive=True), None),
        'tail.jpg': (encode(image, 'JPEG') + b'appended' * 30, None),
    }
    for name, sampling in (('444', 0), ('422', 1), ('420', 2)):
        data = encode(image, 'JPEG', subsampling=sampling, quality=88)
        found[f'{name}.JPG'] = data, None
    odd = Image.fromarray(picture(17, 23))
    found['odd.jfif'] = encode(odd, 'JPEG'), None
    for value in range(1, 9):
        exif = Image.Exif()
        exif[_ORIENTATION] = value
        kinds = (('PNG', 'png'), ('JPEG', 'jpg'), ('TIFF', 'tif'))
        for kind, ending in kinds if value in (5, 6) else kinds[:1]:
            data = encode(image, kind, exif=exif)
            # a turn of the pixels as numpy writes it
            right = _turned(rgb, value) if kind != 'JPEG' else None
            found[f'turned{value}.{ending}'] = data, right
    return found


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF's table says: where row 0 and column 0 of the stored pixels belong."""
    mirrored = {2: 1, 4: 3, 5: 6, 7: 8}.get(orientation)
    if mirrored is not None:
        plain = _turned(pixels, mirrored)
        # 2 and 4 are mirrored before they are turned, 5 and 7 likewise
        return plain[:, ::-1]
    return np.rot90(pixels, {1: 0, 3: 2, 6: 3, 8: 1}[orientation])


def broken() -> dict[str, tuple[bytes, str]]:
    """File name to bytes that no reader takes, and the reason they give."""
    image = Image.fromarray(picture())
    grey = np.asarray(image.convert('L'))
    jpeg = encode(image, 'JPEG')
    png = encode(image, 'PNG')
    return {
        'empty.jpg': (b'', 'empty file'),
        'text.png': (b'no image at all', 'not an image'),
        'cut.jpg': (jpeg[: len(jpeg) // 2], 'damaged or cut off'),
        'cut.png': (png[: len(png) // 2], 'damaged or cut off'),
        'zeros.jpg': (jpeg[: len(jpeg) // 2] + bytes(500), 'damaged or cut off'),
        'integers.tif': (
            encode(Image.fromarray(grey.astype(np.int32)), 'TIFF'),
            'signed or 32-bit integers',
        ),
        'floats.tif': (
            encode(Image.fromarray(grey.astype(np.float32)), 'TIFF'),
            'floating point',
        ),
        'huge.png': (huge_png(), 'more pixels than max_pixels'),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder; it is returned."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
